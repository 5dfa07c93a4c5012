//! How packets get to backends, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{ForwardKind, Forwarding, ModelError};

/// How packets go: `"snat"`, or by where they come from: `{ pod = "nat", elsewhere = "snat" }`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ForwardDecl {
    /// All the same way.
    Word(String),
    /// By source.
    BySource(ForwardBySource),
}

/// See [`ForwardDecl`]. What is left out is `nat`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardBySource {
    /// From pods of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// From anywhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

impl<'de> Deserialize<'de> for ForwardDecl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Word(String),
            BySource(ForwardBySource),
        }
        match Raw::deserialize(deserializer) {
            Ok(Raw::Word(word)) => Ok(Self::Word(word)),
            Ok(Raw::BySource(by)) => Ok(Self::BySource(by)),
            Err(_) => Err(serde::de::Error::custom(
                "forward can't be understood; use \"nat\", \"snat\", \"dsr-l2\" or \"dsr-ipip\", or \
                 { pod = \"nat\", elsewhere = \"snat\" }",
            )),
        }
    }
}

impl ForwardDecl {
    /// As a frontend has it.
    ///
    /// # Errors
    /// A word isn't known.
    pub fn spec(&self) -> Result<Forwarding, ModelError> {
        let parse = |word: &Option<String>| word.as_deref().map_or(Ok(ForwardKind::Nat), ForwardKind::parse);
        match self {
            Self::Word(word) => ForwardKind::parse(word).map(Forwarding::all),
            Self::BySource(by) => Ok(Forwarding { pod: parse(&by.pod)?, elsewhere: parse(&by.elsewhere)? }),
        }
    }
}

impl ForwardDecl {
    /// One word for each source.
    pub fn by_source(word: &str) -> Self {
        Self::BySource(ForwardBySource { pod: Some(word.into()), elsewhere: Some(word.into()) })
    }
}

impl From<Forwarding> for ForwardDecl {
    fn from(forward: Forwarding) -> Self {
        let Forwarding { pod, elsewhere } = forward;
        let word = |kind: ForwardKind| kind.name().to_string();
        if pod == elsewhere {
            return Self::Word(word(pod));
        }
        Self::BySource(ForwardBySource { pod: Some(word(pod)), elsewhere: Some(word(elsewhere)) })
    }
}
