//! How bytes are written: in a config file, and in the reason for a failure.

use lb_text::escape;

use crate::Invalid;

/// Most bytes of an answer that a reason shows.
const SHOWN: usize = 120;

/// The bytes that a text stands for, as [`escape`] writes it or people do. `\r \n \t \0 \xNN \\` are as in Rust, all other
/// characters are themselves, in UTF-8.
///
/// # Errors
/// A backslash is followed by something else.
pub fn unescape(text: &str) -> Result<Vec<u8>, Invalid> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at..];
        let (byte, taken) = match escape.as_bytes().get(1) {
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'0') => (0, 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => (hex(escape).ok_or_else(|| meaningless(text, escape, 4))?, 4),
            _ => return Err(meaningless(text, escape, 2)),
        };
        bytes.push(byte);
        rest = &escape[taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The byte of `\xNN`, at the beginning of `escape`.
fn hex(escape: &str) -> Option<u8> {
    let digits = escape.get(2..4)?;
    // A sign would be a number to from_str_radix as well.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

fn meaningless(text: &str, escape: &str, characters: usize) -> Invalid {
    let what = match escape.chars().take(characters).collect::<String>() {
        lone if lone == "\\" => "a backslash at the end".into(),
        what => format!("`{what}`"),
    };
    Invalid::Escape { text: text.into(), what }
}

/// What came, for a reason: in quotes.
pub fn excerpt(bytes: &[u8]) -> String {
    match shorten(bytes) {
        whole if whole.len() == bytes.len() => format!("\"{}\"", escape(whole)),
        beginning => format!("\"{}...\" ({} bytes)", escape(beginning), bytes.len()),
    }
}

/// A message that a backend words itself, for a reason.
pub fn message(bytes: &[u8]) -> String {
    match shorten(bytes) {
        whole if whole.len() == bytes.len() => escape(whole),
        beginning => format!("{}...", escape(beginning)),
    }
}

/// As much as is shown, not cut in the middle of a character.
fn shorten(bytes: &[u8]) -> &[u8] {
    let goes_on = |byte: u8| byte & 0xc0 == 0x80;
    let Some(next) = bytes.get(SHOWN) else { return bytes };
    let back = if goes_on(*next) {
        // A character has four bytes at most; what is none may be cut anywhere.
        (1..4).find(|back| !goes_on(bytes[SHOWN - back])).unwrap_or(0)
    } else {
        0
    };
    &bytes[..SHOWN - back]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes() {
        assert_eq!(unescape(r"PING\r\n"), Ok(b"PING\r\n".to_vec()));
        assert_eq!(unescape(r"\x00\xfF\0\t\\x41é"), Ok(b"\x00\xff\0\t\\x41\xc3\xa9".to_vec()));
        // As TOML leaves it in a text with double quotes.
        assert_eq!(unescape("PING\r\n"), Ok(b"PING\r\n".to_vec()));
        assert_eq!(unescape(""), Ok(vec![]));
    }

    #[test]
    fn what_means_nothing_is_named_with_the_remedy() {
        let why = |text| unescape(text).expect_err("it means nothing").to_string();
        assert_eq!(why(r"a\qb"), r"`a\qb`: `\q` means nothing; use \r \n \t \0 \xNN, and \\ for a backslash");
        assert!(why(r"\x4g0").contains(r"`\x4g`"));
        assert!(why(r"\x+1").contains(r"`\x+1`"));
        assert!(why(r"\x4").contains(r"`\x4`"));
        assert!(why(r"\xé1").contains(r"`\xé1`"));
        assert!(why(r"\u{e9}").contains(r"`\u`"));
        assert!(why("a\\").contains("a backslash at the end means nothing"));
    }

    #[test]
    fn what_is_shown_is_cut_between_characters() {
        assert_eq!(excerpt(&[b'a'; SHOWN]), format!("\"{}\"", "a".repeat(SHOWN)));
        assert_eq!(excerpt(&[b'a'; SHOWN + 1]), format!("\"{}...\" (121 bytes)", "a".repeat(SHOWN)));
        let wide = |before: usize| [b"a".repeat(before), "日".repeat(SHOWN).into_bytes()].concat();
        for before in 0..3 {
            let shown = message(&wide(before));
            assert!(!shown.contains(r"\x") && shown.ends_with("日..."), "{shown}");
        }
        assert_eq!(message(&[0x80; SHOWN + 1]), format!("{}...", r"\x80".repeat(SHOWN)));
    }
}
