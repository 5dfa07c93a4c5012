//! What was written by somebody, in a sentence of ours: it mustn't end the line, nor begin one that looks like another.

/// So many characters of a sentence are shown, from its beginning and its end.
const SHOWN: usize = 500;

/// A sentence stays a line that can be read, whatever value it names: what would end the line, or do things to a terminal, is
/// escaped, and the middle of a very long one is left out.
pub fn readable(sentence: &str) -> String {
    let mut line = String::with_capacity(sentence.len());
    for c in sentence.chars() {
        if c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    let length = line.chars().count();
    if length <= 2 * SHOWN {
        return line;
    }
    let head: String = line.chars().take(SHOWN).collect();
    let tail: String = line.chars().skip(length - SHOWN).collect();
    format!("{head} ... ({} characters) ... {tail}", length - 2 * SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_a_line_that_can_be_read() {
        for (value, shown) in [
            ("a\nb", "a\\nb".to_string()),
            ("\u{1b}[2J", "\\u{1b}[2J".into()),
            ("caf\u{e9}", "caf\u{e9}".into()),
            (&"x".repeat(1_000), "x".repeat(1_000)),
            (
                &"x".repeat(1_000_000),
                format!("{} ... (999000 characters) ... {}", "x".repeat(500), "x".repeat(500)),
            ),
        ] {
            assert_eq!(readable(value), shown);
        }
    }
}
