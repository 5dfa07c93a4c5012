//! What is declared and refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that is declared and not in force.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct RejectedView {
    /// Service; if its name can't be read, where it is in the file.
    pub service: String,
    /// One backend of it, that the command line added; left out: the service as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `file` or `cli`.
    pub origin: String,
    /// What is wrong, with the remedy.
    pub error: String,
    /// Is its last good version in force?
    pub last_good_in_force: bool,
}
