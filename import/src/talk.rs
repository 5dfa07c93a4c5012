//! Texts of conversations, as Flowpin's file has them.

use std::fmt::Write as _;

use regex::bytes::RegexBuilder;

use crate::model::Step;

/// A regular expression as a step. `None`: Flowpin doesn't take it, since it can't be read or matches anything.
pub fn matches(text: &str) -> Option<Step> {
    // What it matches is ASCII, so that no tables of Unicode are needed.
    let regex = RegexBuilder::new(text).unicode(false).build().ok()?;
    (!regex.is_match(b"")).then(|| Step::Matches(text.into()))
}

/// Bytes, with the escapes of `send` and `expect`.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\r' => text.push_str("\\r"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\\' => text.push_str("\\\\"),
                c if c.is_ascii_control() => hex(&mut text, &[c as u8]),
                c => text.push(c),
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string doesn't fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}
