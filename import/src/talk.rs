//! Texts of conversations, as Flowpin's file has them.

use regex::bytes::RegexBuilder;

use crate::model::Step;

/// A regular expression as a step. `None`: Flowpin doesn't take it, since it can't be read or matches anything.
pub fn matches(text: &str) -> Option<Step> {
    // What it matches is ASCII, so that no tables of Unicode are needed.
    let regex = RegexBuilder::new(text).unicode(false).build().ok()?;
    (!regex.is_match(b"")).then(|| Step::Matches(text.into()))
}
