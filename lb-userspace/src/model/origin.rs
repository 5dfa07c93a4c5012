//! Who declares what.

/// Who declares something. Of two that claim the same, the one that is first here goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The config file.
    File,
    /// The command line, or whoever else asks the API.
    Cli,
    /// The API server of a Kubernetes cluster.
    Kubernetes,
}

impl Origin {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Cli => "cli",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// As in a sentence.
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "the config file",
            Self::Cli => "the command line",
            Self::Kubernetes => "Kubernetes",
        })
    }
}
