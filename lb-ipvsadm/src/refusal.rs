//! Why something isn't done.

/// What kind of mistake it is; the exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// ipvsadm would not understand it either.
    Usage,
    /// ipvsadm would do it, and Flowpin has nothing like it, or the table is not such that it can be done.
    Failed,
}

/// Why nothing is done: one sentence with the value and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct Refusal {
    /// Of what is restored, from 1; `None`: it is the command's own.
    pub line: Option<usize>,
    /// Which kind.
    pub told: Told,
    /// The sentence.
    pub message: String,
}

impl Refusal {
    /// A command that isn't one.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { line: None, told: Told::Usage, message: message.into() }
    }

    /// A command that can't be done here.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { line: None, told: Told::Failed, message: message.into() }
    }

    /// The same, of a line.
    pub fn at(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }
}
