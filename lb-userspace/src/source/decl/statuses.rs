//! Statuses of HTTP that are good, as written.

use std::{fmt, ops::RangeInclusive};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use crate::model::{ModelError, health::statuses};

/// A status, or text with several and ranges of them.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Statuses {
    /// One.
    One(i64),
    /// Like `200-399` or `200,404`.
    Text(String),
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Statuses;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status like 200, or several like \"200-399\" or \"200,404\"")
            }
            fn visit_str<E>(self, text: &str) -> Result<Statuses, E> {
                Ok(Statuses::Text(text.into()))
            }
            fn visit_i64<E>(self, status: i64) -> Result<Statuses, E> {
                Ok(Statuses::One(status))
            }
            fn visit_u64<E>(self, status: u64) -> Result<Statuses, E> {
                // What doesn't fit is out of range as well.
                Ok(Statuses::One(i64::try_from(status).unwrap_or(i64::MAX)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(status) => write!(f, "{status}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Statuses {
    /// The ranges that it names, at least one.
    ///
    /// # Errors
    /// It isn't of that form, or a status isn't from 100 to 599.
    pub fn ranges(&self) -> Result<Vec<RangeInclusive<u16>>, ModelError> {
        let text = self.to_string();
        let ranges: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
        let known = "a status from 100 to 599, or several, as \"200-399\" or \"200,404\"";
        ranges.ok_or(ModelError::NotKnown { what: "health.expect", text, known })
    }

    /// With these ranges.
    pub fn of(ranges: &[RangeInclusive<u16>]) -> Self {
        if let [one] = ranges
            && one.start() == one.end()
        {
            return Self::One((*one.start()).into());
        }
        Self::Text(statuses(ranges))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first.trim())?, status(last.trim())?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_and_ranges_come_back_as_they_were() {
        for (written, ranges) in [("200-399", vec![200..=399]), ("200,404", vec![200..=200, 404..=404])] {
            let statuses = Statuses::Text(written.into());
            assert_eq!(statuses.ranges().unwrap(), ranges);
            assert_eq!(Statuses::of(&ranges), statuses);
        }
        assert_eq!(Statuses::Text(" 204 , 301 - 302 ".into()).ranges().unwrap(), [204..=204, 301..=302]);
        assert_eq!(Statuses::of(&[200..=200]), Statuses::One(200));
        assert_eq!(Statuses::Text("200".into()).ranges().unwrap(), Statuses::One(200).ranges().unwrap());
        for odd in ["", "2xx", "99", "600", "399-200", "200-", "200,,404"] {
            let error = Statuses::Text(odd.into()).ranges().unwrap_err().to_string();
            assert!(error.contains(&format!("{odd:?}")) && error.contains("200-399"), "{error}");
        }
        assert!(Statuses::One(i64::MAX).ranges().is_err());
    }
}
