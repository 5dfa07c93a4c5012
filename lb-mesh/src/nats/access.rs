//! How the node presents itself to servers: from files, which are read again for each connection.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_nats::ConnectOptions;
use tokio_rustls::rustls::ClientConfig;
use tracing::warn;

use super::server::NatsServer;
use crate::{
    MeshError, Nats,
    identity::{identity, of_client},
};

struct Files {
    /// Nobody has to believe a server's certificate unless it shows one.
    tls: ClientConfig,
    credentials: Option<String>,
}

struct Now {
    files: Files,
    problem: Option<String>,
}

/// See the module.
pub(crate) struct Access {
    settings: Nats,
    now: Mutex<Now>,
}

impl Access {
    /// # Errors
    /// A file can't be read, or isn't what it should be.
    pub(crate) fn load(settings: Nats) -> Result<Self, MeshError> {
        let now = Mutex::new(Now { files: load(&settings)?, problem: None });
        Ok(Self { settings, now })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next connection: what files say now, or the last good ones.
    pub(crate) fn options(&self, server: &NatsServer) -> ConnectOptions {
        let mut now = self.now();
        match load(&self.settings) {
            Ok(files) => *now = Now { files, problem: None },
            Err(error) => {
                let problem = Some(error.to_string());
                if now.problem != problem {
                    warn!("the files for NATS have changed, the last ones stay in use: {error}");
                    now.problem = problem;
                }
            }
        }
        let needs_tls = server.is_tls() || self.settings.ca.is_some() || self.settings.certificate.is_some();
        let options = ConnectOptions::new().require_tls(needs_tls).tls_client_config(now.files.tls.clone());
        let options = server.log_in(options);
        match &now.files.credentials {
            // They were tried when they were read.
            Some(text) => options.credentials(text).unwrap_or_default(),
            None => options,
        }
    }

    /// Why the files can't be used as they are now.
    pub(crate) fn problem(&self) -> Option<String> {
        self.now().problem.clone()
    }
}

fn load(settings: &Nats) -> Result<Files, MeshError> {
    let certificate = settings.certificate.as_ref().map(|(certificate, key)| (&**certificate, &**key));
    let tls = of_client(settings.ca.as_deref(), certificate)?;
    let credentials = settings.credentials.as_deref().map(credentials).transpose()?;
    Ok(Files { tls, credentials })
}

fn credentials(path: &Path) -> Result<String, MeshError> {
    let text = fs::read_to_string(path).map_err(|error| MeshError::File { path: path.into(), error })?;
    let unfit = |error| {
        let why = format!("{error}; write what `nsc generate creds` says");
        identity(&PathBuf::from(path), &why)
    };
    ConnectOptions::with_credentials(&text).map_err(unfit)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials_of_a_user() -> String {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.AA\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn the_last_good_credentials_stay_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let (path, good) = (directory.path().join("node-1.creds"), credentials_of_a_user());
        let servers = NatsServer::list("nats://h").unwrap();
        let settings =
            Nats { servers: servers.clone(), credentials: Some(path.clone()), ca: None, certificate: None };
        assert!(Access::load(settings.clone()).err().unwrap().to_string().contains("No such file"));
        fs::write(&path, "s3cret").unwrap();
        let error = Access::load(settings.clone()).err().unwrap().to_string();
        assert!(
            error.contains("node-1.creds: cannot parse") && error.contains("nsc generate creds"),
            "{error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
        fs::write(&path, &good).unwrap();
        let access = Access::load(settings).unwrap();
        fs::write(&path, "nonsense").unwrap();
        access.options(&servers[0]);
        assert!(access.problem().unwrap().contains("cannot parse"));
        assert!(access.now().files.credentials.as_deref() == Some(&*good));
        fs::write(&path, &good).unwrap();
        access.options(&servers[0]);
        assert_eq!(access.problem(), None);
    }
}
