//! Words of HAProxy's syntax: a directive a line, `#` begins a comment, a backslash takes the next character as it
//! is, and words may be quoted, strongly (`'`) or weakly (`"`).

use crate::{ImportError, directive::Directive};

/// Lines that say something.
///
/// # Errors
/// A quoted text has no end.
pub fn read(text: &str) -> Result<Vec<Directive>, ImportError> {
    let mut directives = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let words = words(line, i + 1)?;
        if !words.is_empty() {
            directives.push(Directive::new(i + 1, words));
        }
    }
    Ok(directives)
}

fn words(line: &str, number: usize) -> Result<Vec<String>, ImportError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => {
                let next = match chars.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('x') => match hex(chars.as_str()) {
                        Some(byte) => {
                            chars.nth(1);
                            // What is no ASCII is no text by itself: whoever takes it for one sees that.
                            if byte.is_ascii() { char::from(byte) } else { char::REPLACEMENT_CHARACTER }
                        }
                        None => 'x',
                    },
                    Some(other) => other,
                    None => '\\',
                };
                word.get_or_insert_default().push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, '#') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(ImportError::new(number, format!("a quoted text has no end; close it with {quote}")));
    }
    words.extend(word);
    Ok(words)
}

/// The byte of two hexadecimal digits.
fn hex(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_comments() {
        let of = |line| words(line, 7).unwrap().join("|");
        assert_eq!(of("  a b\\ c \"d e\"f 'g\\h' # i"), "a|b c|d ef|g\\h");
        assert_eq!(of("a \\# b#c"), "a|#|b");
        assert_eq!(of("send PING\\r\\n \"a\\\"b\" ''"), "send|PING\r\n|a\"b|");
        assert_eq!(of("\\x41\\x0a\\xff\\xg"), "A\n\u{fffd}xg");
        assert_eq!(of("# a"), "");
        assert_eq!(of("a\\"), "a\\");
        assert!(words("a 'b", 7).unwrap_err().to_string().contains("line 7"));
    }
}
