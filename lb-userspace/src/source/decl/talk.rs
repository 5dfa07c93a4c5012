//! A conversation with a backend, as written.

use lb_probes::{Conversation, Pattern, Step, escape, unescape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{ModelError, Probe};

/// One step of a conversation: one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct StepDecl {
    /// Is sent: text, with `\r \n \t \0 \xNN`, and `\\` for a backslash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// Must be in what came since the last `send`; written as that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// A regular expression that must match something in what came since the last `send`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}

impl StepDecl {
    fn step(&self) -> Result<Step, ModelError> {
        let invalid = |why| ModelError::Probe { what: "health.talk", why };
        match self {
            Self { send: Some(text), expect: None, matches: None } => {
                unescape(text).map(Step::Send).map_err(invalid)
            }
            Self { send: None, expect: Some(text), matches: None } => {
                Pattern::contains(text).map(Step::Expect).map_err(invalid)
            }
            Self { send: None, expect: None, matches: Some(text) } => {
                Pattern::matches(text).map(Step::Expect).map_err(invalid)
            }
            _ => {
                let known = "one of send, expect and matches in each step";
                Err(ModelError::NotKnown { what: "a step of health.talk,", text: json(self), known })
            }
        }
    }
}

/// What is said to be asked by these steps.
///
/// # Errors
/// One of them isn't usable, or nothing is expected.
pub fn probe(talk: &[StepDecl]) -> Result<Probe, ModelError> {
    let steps = talk.iter().map(StepDecl::step).collect::<Result<Vec<_>, _>>()?;
    if !steps.iter().any(|step| matches!(step, Step::Expect(_))) {
        return Err(ModelError::TalkExpectsNothing { talk: json(talk) });
    }
    let invalid = |why| ModelError::Probe { what: "health.talk", why };
    Conversation::new(steps).map(Probe::Talk).map_err(invalid)
}

/// As it would be written.
pub fn steps(conversation: &Conversation) -> Vec<StepDecl> {
    let step = |step: &Step| match step {
        Step::Send(bytes) => StepDecl { send: Some(escape(bytes)), ..StepDecl::default() },
        Step::Expect(Pattern::Contains(bytes)) => {
            StepDecl { expect: Some(escape(bytes)), ..StepDecl::default() }
        }
        Step::Expect(Pattern::Matches(regex)) => {
            StepDecl { matches: Some(regex.as_str().into()), ..StepDecl::default() }
        }
    };
    conversation.steps().iter().map(step).collect()
}

/// In an error.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Texts always have a form in JSON.
    serde_json::to_string(value).unwrap_or_default()
}
