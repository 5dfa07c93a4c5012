//! A NATS server, in a process of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::cluster::until;

/// What it is started as. Killed when it is dropped.
pub struct NatsServer {
    directory: TempDir,
    child: Option<Child>,
    /// Where it listens, at 127.0.0.1.
    pub port: u16,
}

fn binary() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")));
    let installed = cache.map(|cache| cache.join("flowpin/nats/nats-server")).filter(|path| path.exists());
    installed.expect("there is no nats-server to test with: run `sudo scripts/setup`, which installs one")
}

impl NatsServer {
    /// A server that listens at a free port. `config`: what its file says besides.
    pub async fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { directory, child: None, port: 0 };
        let ports = server.directory.path().display().to_string();
        server.configure("-1", &format!("ports_file_dir: {ports:?}\n{config}"));
        server.run();
        let id = server.child.as_ref().unwrap().id();
        let ports = server.directory.path().join(format!("nats-server_{id}.ports"));
        until("the server says where it listens", || async {
            fs::read_to_string(&ports).map(drop).map_err(|error| (error, server.log()))
        })
        .await;
        let said = fs::read_to_string(ports).unwrap();
        let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next());
        server.port = port.and_then(|port| port.parse().ok()).expect(&said);
        server.configure(&server.port.to_string(), config);
        server
    }

    fn configure(&self, port: &str, config: &str) {
        // What frames are at most, and who is slow, is as by default.
        let config = format!("listen: \"127.0.0.1:{port}\"\n{config}\n");
        fs::write(self.directory.path().join("nats.conf"), config).unwrap();
    }

    fn run(&mut self) {
        let at = |file| self.directory.path().join(file);
        let log = fs::File::options().append(true).create(true).open(at("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("-c").arg(at("nats.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// It is gone, and no connection was closed by it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// It does nothing any more, though its connections stay, or goes on.
    pub fn set_stuck(&self, stuck: bool) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let signal = if stuck { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// It is there again, at the same port.
    pub fn run_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.run();
    }

    /// Its address. `login`: with an `@` behind it.
    pub fn url(&self, login: &str) -> String {
        format!("nats://{login}127.0.0.1:{}", self.port)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
