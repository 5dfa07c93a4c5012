//! How bytes and names of hosts are written: in a config file, by the importers, and in the reason for a failure. Text in,
//! text out, and no dependencies, so that whoever has to do with text only needs nothing else.

use std::fmt::Write as _;

/// How bytes are written, with the escapes of `send` and `expect`. One line; what can't be seen is written as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\r' => text.push_str("\\r"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\0' => text.push_str("\\0"),
                '\\' => text.push_str("\\\\"),
                // What escape_debug leaves as it is can be seen.
                '"' | '\'' => text.push(c),
                c if c.escape_debug().len() == 1 => text.push(c),
                c => push_hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string doesn't fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Is it a host's name? Of labels of letters, digits, hyphens and underscores (RFC 1123; underscores are common in private
/// zones), of which the last isn't a number, so that a mistyped address is none; with a dot at the end or without.
pub fn is_host(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cant_be_seen_is_escaped() {
        assert_eq!(escape("\"é\" '日本'".as_bytes()), "\"é\" '日本'");
        assert_eq!(escape(b"\r\n\t\0\\\x1b[2J\x7f\xff"), r"\r\n\t\0\\\x1b[2J\x7f\xff");
        // A line separator, and an order to write from right to left.
        assert_eq!(escape("\u{2028}\u{202e}".as_bytes()), r"\xe2\x80\xa8\xe2\x80\xae");
    }

    #[test]
    fn what_may_be_a_mistyped_address_is_no_name() {
        let (label, long) = ("a".repeat(64), "a.".repeat(127));
        for name in ["db", "db.", "DB.example.com", "my_db-1.0a", &long[..253]] {
            assert!(is_host(name), "{name}");
        }
        for name in ["", ".", "db..", "10.0.0.300", "10.0.1.", "1", "a..b", "-a", "a-.b", "ünter.de", &label]
        {
            assert!(!is_host(name), "{name}");
        }
        assert!(!is_host(&format!("{long}a")));
    }
}
