//! A config file with passwords that all users of the node can read.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use super::Config;
use crate::model::Probe;

/// Everybody may read.
const READ_BY_ALL: u32 = 0o004;

/// What is wrong with the file's mode, and the remedy; `None`: nothing, or there is no such file.
pub fn exposed(path: &Path, config: &Config) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let open = mode & READ_BY_ALL != 0 && (has_passwords(config) || has_login(&config.head));
    let path = path.display();
    open.then(|| {
        format!("{path} has a password in it, and every user of the node can read it; chmod 600 {path}, and reload")
    })
}

/// Do health checks log in with one?
fn has_passwords(config: &Config) -> bool {
    let probes = config.services.iter().filter_map(|service| service.spec.as_ref().ok()?.health.as_ref());
    probes.into_iter().any(|health| match &health.probe {
        Probe::Redis(redis) => redis.password.is_some(),
        Probe::Postgres(postgres) => postgres.password.is_some(),
        _ => false,
    })
}

/// Has a server that nodes meet at a login in its address? Who has read it shows it to nobody.
fn has_login(head: &str) -> bool {
    let transport = |line: &&str| line.trim_start().starts_with("transport");
    head.lines()
        .filter(transport)
        .any(|line| line.split_once("://").is_some_and(|(_, rest)| rest.contains('@')))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;
    use crate::source::config::load;

    #[test]
    fn passwords_that_all_can_read_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("f.toml");
        let service = "[[service]]\nname = \"a\"\nvip = \"10.96.0.1\"\nports = [\"6379/tcp\"]\n";
        let with = format!("{service}health = {{ type = \"redis\", password = \"s3cret\" }}\n");
        let without = format!("{service}health = {{ type = \"redis\" }}\n");
        let nats = |login: &str| {
            format!("[cluster]\nname = \"c\"\nnode = \"n\"\ntransport = \"nats://{login}nats:4222\"\n")
        };
        for (text, mode, says) in [
            (&with, 0o644, true),
            (&with, 0o640, false),
            (&with, 0o600, false),
            (&without, 0o644, false),
            (&nats("n:s3cret@"), 0o604, true),
            (&nats(""), 0o644, false),
        ] {
            write(&file, text).expect("it is written");
            set_permissions(&file, Permissions::from_mode(mode)).expect("it is ours");
            let said = exposed(&file, &load(Some(&file)).expect("it is good"));
            assert_eq!(said.is_some(), says, "{mode:o} {text}");
            if let Some(said) = said {
                let remedy = format!("chmod 600 {}", file.display());
                assert!(said.contains(&remedy) && !said.contains("s3cret"), "{said}");
            }
        }
        assert_eq!(exposed(Path::new("/nonexistent"), &load(None).expect("defaults")), None);
    }
}
