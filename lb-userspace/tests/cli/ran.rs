//! The real binary, run to its end.

use std::process::{Command, Output};

use serde_json::Value;

/// The binary, with an environment of its own.
pub fn flowpin(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowpin"));
    command.args(args).env_remove("FLOWPIN_API_SOCKET").env_remove("RUST_LOG");
    command
}

/// How a run ended.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the binary starts");
        Self {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).expect("text"),
            err: String::from_utf8(stderr).expect("text"),
        }
    }

    /// It succeeded; its output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// It succeeded and printed JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("JSON")
    }

    /// It failed with this code and one line, which is returned.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        assert_eq!(self.err.lines().count(), 1, "not one line: {}", self.err);
        let line = self.err.trim_end().strip_prefix("flowpin: ");
        line.unwrap_or_else(|| panic!("no name in front: {}", self.err)).into()
    }
}

/// All parts are in the text.
#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
}

/// Field names of an object, sorted.
#[track_caller]
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}
