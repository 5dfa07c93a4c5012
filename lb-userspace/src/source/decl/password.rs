//! A password, as written: it goes into the agent's own files, and nowhere else.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use crate::model::ModelError;

/// What is shown in the place of a password.
const SHOWN: &str = "***";

/// A password. What is shown of a service has asterisks in its place.
#[derive(Clone, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

/// No error names what was written instead of a text: it may be the password, without its quotes.
impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WRITE: &str = "the password is not a text; write it in quotes";
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Password;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a password in quotes")
            }
            fn visit_str<E>(self, text: &str) -> Result<Password, E> {
                Ok(Password(text.into()))
            }
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Password, E> {
                Err(E::custom(WRITE))
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Password, E> {
                Err(E::custom(WRITE))
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Password, E> {
                Err(E::custom(WRITE))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl Password {
    /// That there is one.
    pub fn shown() -> Self {
        Self(SHOWN.into())
    }

    /// The password itself.
    ///
    /// # Errors
    /// It is empty, or what is shown in the place of one.
    pub fn secret(&self) -> Result<String, ModelError> {
        match self.0.as_str() {
            SHOWN => Err(ModelError::ShownPassword),
            "" => {
                let known = "the password, or leave it out";
                Err(ModelError::NotKnown { what: "health.password", text: String::new(), known })
            }
            text => Ok(text.into()),
        }
    }
}
