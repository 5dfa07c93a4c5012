//! What an HTTP check asks for, as written.

use std::fmt;

use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::model::ModelError;

/// Most paths that one check asks for.
const MOST: usize = 16;

/// A path, or several: each must be answered with a good status.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One.
    One(String),
    /// In the order in which they are asked for.
    Several(Vec<String>),
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Paths;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path like \"/healthz\", or several like [\"/live\", \"/ready\"]")
            }
            fn visit_str<E>(self, path: &str) -> Result<Paths, E> {
                Ok(Paths::One(path.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Paths, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = list.next_element()? {
                    paths.push(path);
                }
                Ok(Paths::Several(paths))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Paths {
    /// As a check has them: at least one.
    ///
    /// # Errors
    /// One isn't a path, one is there twice, or they are none or too many.
    pub fn list(&self) -> Result<Vec<String>, ModelError> {
        let list = match self {
            Self::One(path) => vec![path.clone()],
            Self::Several(paths) => paths.clone(),
        };
        let refused = |text: String, known| Err(ModelError::NotKnown { what: "health.path", text, known });
        let odd = |path: &&String| !path.starts_with('/') || path.parse::<PathAndQuery>().is_err();
        if let Some(path) = list.iter().find(odd) {
            let known = "a path like /healthz, without spaces and other characters that URLs don't have";
            return refused(path.clone(), known);
        }
        let twice = |(at, path): &(usize, &String)| list[..*at].contains(path);
        if let Some((_, path)) = list.iter().enumerate().find(twice) {
            return refused(path.clone(), "each path once");
        }
        if list.is_empty() || list.len() > MOST {
            return refused(list.join(", "), "1 to 16 paths, as [\"/live\", \"/ready\"]");
        }
        Ok(list)
    }

    /// These.
    pub fn of(list: &[String]) -> Self {
        match list {
            [one] => Self::One(one.clone()),
            several => Self::Several(several.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_is_a_word_and_several_are_a_list() {
        for (written, list) in [(json!("/a"), vec!["/a"]), (json!(["/a", "/b?x=1"]), vec!["/a", "/b?x=1"])] {
            let paths: Paths = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(paths.list().unwrap(), list);
            assert_eq!(serde_json::to_value(Paths::of(&paths.list().unwrap())).unwrap(), written);
        }
        let one: Paths = serde_json::from_value(json!(["/a"])).unwrap();
        assert_eq!(Paths::of(&one.list().unwrap()), Paths::One("/a".into()));
    }

    #[test]
    fn what_is_no_path_is_named() {
        let many: Vec<String> = (0..17).map(|i| format!("/{i}")).collect();
        for (written, says) in [
            (json!("healthz"), "\"healthz\" is not known; use a path like /healthz"),
            (json!(["/a", "/b c"]), "\"/b c\""),
            (json!(["/a", "/b", "/a"]), "\"/a\" is not known; use each path once"),
            (json!([]), "1 to 16"),
            (json!(many), "1 to 16"),
        ] {
            let paths: Paths = serde_json::from_value(written).unwrap();
            let error = paths.list().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = serde_json::from_value::<Paths>(json!(7)).unwrap_err().to_string();
        assert!(error.contains("a path like"), "{error}");
    }
}
