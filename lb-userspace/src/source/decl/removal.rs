//! What becomes of a removed backend's connections, as written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::time::Time;
use crate::{
    model::{ModelError, RemovalPolicies, RemovalPolicy},
    source::runtime::LONGEST,
};

/// A policy: `"drain"`, or one with a deadline: `{ policy = "drain", deadline = "300s" }`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RemovalDecl {
    /// Without a deadline.
    Word(String),
    /// With one.
    Within(RemovalWithin),
}

/// See [`RemovalDecl`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemovalWithin {
    /// `keep` (the default) or `drain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How long connections may go on once their backend is removed: what is open then is reset; up to 365 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

impl<'de> Deserialize<'de> for RemovalDecl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Word(String),
            Within(RemovalWithin),
        }
        match Raw::deserialize(deserializer) {
            Ok(Raw::Word(word)) => Ok(Self::Word(word)),
            Ok(Raw::Within(RemovalWithin { policy: Some(word), deadline: None })) => Ok(Self::Word(word)),
            Ok(Raw::Within(within)) => Ok(Self::Within(within)),
            Err(_) => Err(serde::de::Error::custom(
                "on_removal can't be understood; use \"keep\", \"drain\" or \"reset\", or \
                 { policy = \"drain\", deadline = \"300s\" }",
            )),
        }
    }
}

impl RemovalDecl {
    /// The policy, and the deadline.
    ///
    /// # Errors
    /// The policy isn't known or has no deadline, or the deadline is out of range.
    pub fn spec(&self) -> Result<(RemovalPolicy, Option<Duration>), ModelError> {
        let parse = |word: &str| RemovalPolicy::parse("on_removal", word);
        let (policy, deadline) = match self {
            Self::Word(word) => return Ok((parse(word)?, None)),
            Self::Within(RemovalWithin { policy, deadline }) => {
                (policy.as_deref().map_or(Ok(RemovalPolicy::Usual), parse)?, deadline)
            }
        };
        let longest = Duration::from_secs(LONGEST);
        let within = |time: &Time| time.within("on_removal.deadline", longest, "from 1s to 365days");
        let deadline = deadline.as_ref().map(within).transpose()?;
        match deadline {
            Some(_) if policy == RemovalPolicy::Reset => Err(ModelError::ResetHasNoDeadline),
            deadline => Ok((policy, deadline)),
        }
    }

    /// As a change of a part of it finds it.
    pub fn parts(&self) -> RemovalWithin {
        match self {
            Self::Word(word) => RemovalWithin { policy: Some(word.clone()), deadline: None },
            Self::Within(within) => within.clone(),
        }
    }

    /// What of these is said, if anything is.
    pub fn of(policies: &RemovalPolicies) -> Option<Self> {
        let policy = policies.removal.name().map(String::from);
        match policies.removal_deadline {
            None => policy.map(Self::Word),
            Some(deadline) => Some(Self::Within(RemovalWithin { policy, deadline: Some(deadline.into()) })),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(written: serde_json::Value) -> RemovalDecl {
        serde_json::from_value(written).expect("a declaration")
    }

    #[test]
    fn a_word_or_a_table_is_shown_as_it_was() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (written, policy, deadline, shown) in [
            (json!("drain"), RemovalPolicy::Drain, None, json!("drain")),
            (json!({"policy": "keep"}), RemovalPolicy::Keep, None, json!("keep")),
            (
                json!({"policy": "drain", "deadline": "5m"}),
                RemovalPolicy::Drain,
                seconds(300),
                json!({"policy": "drain", "deadline": 300.0}),
            ),
            (json!({"deadline": 7}), RemovalPolicy::Usual, seconds(7), json!({"deadline": 7.0})),
        ] {
            let (removal, removal_deadline) = read(written.clone()).spec().unwrap();
            assert_eq!((removal, removal_deadline), (policy, deadline), "{written}");
            let policies = RemovalPolicies { removal, removal_deadline, ..RemovalPolicies::default() };
            assert_eq!(serde_json::to_value(RemovalDecl::of(&policies)).unwrap(), shown);
        }
        assert_eq!(RemovalDecl::of(&RemovalPolicies::default()), None);
        assert_eq!(read(json!({})).spec().unwrap(), (RemovalPolicy::Usual, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (written, says) in [
            (json!("cut"), "use keep, drain or reset"),
            (json!({"policy": "reset", "deadline": "5m"}), "resets at once"),
            (json!({"deadline": "0s"}), "from 1s to 365days"),
            (json!({"policy": "drain", "deadline": "366days"}), "on_removal.deadline \"366days\""),
        ] {
            let error = read(written).spec().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = serde_json::from_value::<RemovalDecl>(json!({"after": "5m"})).unwrap_err().to_string();
        assert!(error.contains("deadline = \"300s\""), "{error}");
    }
}
