//! What may come into the build, by cargo-deny and `deny.toml`: licences, banned crates and sources always; advisories where the database of them
//! can be had, which is a git repository on the internet.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, bail};

use crate::root;

/// How long the database may take to come, in seconds. It is a few megabytes.
const PATIENCE: &str = "120";

/// What is known of advisories.
#[derive(Debug, PartialEq, Eq)]
pub enum Advisories {
    /// None speaks against a crate of ours.
    Checked,
    /// Nothing, for this reason.
    Unchecked(String),
}

/// Checks all.
///
/// # Errors
/// cargo-deny isn't installed, or something may not come into the build.
pub fn run() -> anyhow::Result<Advisories> {
    check(&root().join("deny.toml"), |_| ())
}

/// The same, by this file. `prepare`: changes how the programs are called.
fn check(config: &Path, prepare: impl Fn(&mut Command)) -> anyhow::Result<Advisories> {
    let call = |program: &str, args: &[&str]| -> anyhow::Result<Output> {
        let mut command = Command::new(program);
        command.args(args).current_dir(root());
        prepare(&mut command);
        command.output().with_context(|| {
            format!("{program} can't be run: cargo-deny is installed by scripts/setup, timeout by coreutils")
        })
    };
    let config = config.to_str().context("a path in UTF-8")?;
    let deny = |args: &[&str]| {
        // Which crates are there several times is told by `cargo tree --duplicates`.
        let out =
            call("cargo-deny", &[&["--config", config, "check", "--allow", "duplicate"], args].concat())?;
        let said = String::from_utf8_lossy(&out.stderr).trim().to_string();
        if !out.status.success() {
            bail!("cargo-deny: what comes into the build may not, see deny.toml\n{said}");
        }
        println!("{said}");
        Ok(())
    };
    deny(&["licenses", "bans", "sources"])?;
    let fetched = call("timeout", &[PATIENCE, "cargo-deny", "--config", config, "fetch", "db"])?;
    if !fetched.status.success() {
        let said = String::from_utf8_lossy(&fetched.stderr);
        let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said =
            if said.is_empty() { format!("nothing came within {PATIENCE} s") } else { said.join("; ") };
        return Ok(Advisories::Unchecked(format!("their database can't be had: {said}")));
    }
    // It may not have changed since; who has to know whether a crate was withdrawn asks the index, which is elsewhere.
    deny(&["advisories"])?;
    Ok(Advisories::Checked)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A database with one advisory, for a crate of this name, in place of the real one.
    struct Database {
        dir: TempDir,
    }

    impl Database {
        fn about(name: &str) -> Self {
            let dir = TempDir::new().unwrap();
            let at = dir.path().join("db/crates").join(name);
            fs::create_dir_all(&at).unwrap();
            let text = format!(
                "```toml\n[advisory]\nid = \"RUSTSEC-2020-0001\"\npackage = \"{name}\"\ndate = \"2020-01-01\"\n\
                 [versions]\npatched = []\n```\n\n# It is broken\n\nVery much.\n"
            );
            fs::write(at.join("RUSTSEC-2020-0001.md"), text).unwrap();
            let git = |args: &[&str]| {
                let own = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
                let mut command = Command::new("git");
                command.args(own).args(args).current_dir(dir.path().join("db"));
                assert!(command.output().unwrap().status.success(), "{args:?}");
            };
            git(&["init", "--quiet", "--initial-branch", "main"]);
            git(&["add", "."]);
            git(&["commit", "--quiet", "--message", "an advisory"]);
            Self { dir }
        }

        /// Our own rules, and the database kept here.
        fn config(&self) -> std::path::PathBuf {
            let ours = fs::read_to_string(root().join("deny.toml")).unwrap();
            let at = format!("[advisories]\ndb-path = \"{}\"", self.dir.path().join("kept").display());
            assert!(ours.contains("[advisories]"));
            let config = self.dir.path().join("deny.toml");
            fs::write(&config, ours.replace("[advisories]", &at)).unwrap();
            config
        }

        /// Git takes the real database's address for this one's.
        fn instead(&self, command: &mut Command) {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env(
                    "GIT_CONFIG_KEY_0",
                    format!("url.file://{}.insteadOf", self.dir.path().join("db").display()),
                )
                .env("GIT_CONFIG_VALUE_0", "https://github.com/RustSec/advisory-db");
        }
    }

    #[test]
    fn an_advisory_for_a_crate_of_ours_fails() {
        let database = Database::about("anyhow");
        let error = check(&database.config(), |command| database.instead(command)).unwrap_err().to_string();
        assert!(error.contains("RUSTSEC-2020-0001"), "{error}");
    }

    #[test]
    fn one_for_another_crate_does_not() {
        let database = Database::about("nobody-has-this");
        let checked = check(&database.config(), |command| database.instead(command)).unwrap();
        assert_eq!(checked, Advisories::Checked);
    }

    #[test]
    fn without_the_database_the_others_are_checked_and_it_is_said() {
        let database = Database::about("anyhow");
        let nowhere = |command: &mut Command| {
            database.instead(command);
            command.env("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf");
        };
        let Ok(Advisories::Unchecked(why)) = check(&database.config(), nowhere) else { panic!("checked") };
        assert!(why.contains("advisory-db"), "{why}");
        let rules = fs::read_to_string(database.config()).unwrap().replace("\"ISC\",", "");
        fs::write(database.dir.path().join("deny.toml"), rules).unwrap();
        let error = check(&database.dir.path().join("deny.toml"), nowhere).unwrap_err().to_string();
        assert!(error.contains("ISC"), "{error}");
    }

    #[test]
    fn without_cargo_deny_it_is_said_how_to_get_it() {
        let error = check(Path::new("deny.toml"), |command| {
            command.env("PATH", "/nowhere");
        });
        assert!(error.unwrap_err().to_string().contains("scripts/setup"));
    }
}
