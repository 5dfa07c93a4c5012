//! Why a command failed, and the exit code that says so to scripts.

use std::io;

use crate::api::client::ClientError;

/// A failed command. Its message becomes the one line on stderr.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// The output could not be written.
    #[error("can't write the output: {0}")]
    Output(#[from] io::Error),
    /// The command line, in words.
    #[error("{0}")]
    Usage(String),
    /// Anything else, in words.
    #[error("{0}")]
    Said(String),
}

impl Failure {
    /// 1 failed, 2 wrong usage, 3 agent unreachable; 0 if whoever read the output had read enough (`flowpin connection list | head`).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_) => 2,
            Self::Api(ClientError::Unreachable { .. }) => 3,
            _ => 1,
        }
    }
}
