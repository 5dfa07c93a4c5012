//! The API's socket as a file: made with its mode, left-over ones replaced, gone when the agent is.

use std::{
    fs::{Permissions, remove_file, set_permissions, symlink_metadata},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tokio::net::{UnixListener, UnixStream};

/// Removes the socket's file when dropped, so that the next agent need not wonder whether anybody listens.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = remove_file(&self.0);
    }
}

/// Binds. A socket that nobody answers on is left over, and replaced.
pub(super) async fn listen(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("api_socket: {}", dir.display()))?;
    }
    if let Ok(meta) = symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            bail!(
                "api_socket {} is there and is no socket; remove it or choose another path",
                path.display()
            );
        }
        if UnixStream::connect(path).await.is_ok() {
            bail!(
                "another agent listens on {}; stop it, or give this one a socket of its own",
                path.display()
            );
        }
        remove_file(path).with_context(|| format!("api_socket {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("api_socket {}", path.display()))?;
    let file = SocketFile(path.into());
    set_permissions(path, Permissions::from_mode(0o660))?;
    Ok((listener, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_live_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/api.sock");
        std::fs::create_dir(dir.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listener, file) = listen(&path).await.unwrap();
        assert_eq!(symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = listen(&path).await.err().unwrap().to_string();
        assert!(error.contains("another agent listens on"), "{error}");
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        std::fs::write(&path, "mine").unwrap();
        let error = listen(&path).await.err().unwrap().to_string();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
