//! Words and blocks of nginx's syntax: directives end with `;` or have a block between braces, words may be
//! quoted, `#` at the beginning of a word is a comment, a backslash takes the next character as it is.

use std::{iter::Peekable, str::Chars};

use crate::{ImportError, directive::Directive};

/// Deepest nesting.
const DEEPEST: usize = 64;

/// A word, or what ends one.
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

/// Directives of a file.
///
/// # Errors
/// A block, a directive or a quoted text has no end.
pub fn read(text: &str) -> Result<Vec<Directive>, ImportError> {
    let mut lexer = Lexer { chars: text.chars().peekable(), line: 1 };
    // Blocks that are open, the innermost last, and what is in them so far. Below them all, the file.
    let mut open: Vec<Vec<Directive>> = vec![Vec::new()];
    let mut begun: Vec<Directive> = Vec::new();
    let (mut words, mut first) = (Vec::new(), 1);
    while let Some((line, token)) = lexer.token()? {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    first = line;
                }
                words.push(word);
            }
            // A lone ; is nothing.
            Token::End if words.is_empty() => {}
            Token::End => {
                let directive = Directive { last: line, ..Directive::new(first, std::mem::take(&mut words)) };
                open.last_mut().into_iter().for_each(|block| block.push(directive.clone()));
            }
            Token::Open if words.is_empty() => {
                return Err(ImportError::new(line, "a block has no name; write one before its {"));
            }
            Token::Open if begun.len() == DEEPEST => {
                return Err(ImportError::new(
                    line,
                    format!("blocks are more than {DEEPEST} deep; there is a }} missing"),
                ));
            }
            Token::Open => {
                begun.push(Directive::new(first, std::mem::take(&mut words)));
                open.push(Vec::new());
            }
            Token::Close => {
                if !words.is_empty() {
                    return Err(ImportError::new(
                        first,
                        format!("{} has no end; close it with ;", words.join(" ")),
                    ));
                }
                let (Some(directive), Some(block)) = (begun.pop(), open.pop()) else {
                    return Err(ImportError::new(line, "a } closes nothing; take it away"));
                };
                let directive = Directive { last: line, block: Some(block), ..directive };
                open.last_mut().into_iter().for_each(|block| block.push(directive.clone()));
            }
        }
    }
    if let Some(directive) = begun.pop() {
        return Err(ImportError::new(
            directive.line,
            format!("the block of {} has no end; close it with }}", directive.name()),
        ));
    }
    if !words.is_empty() {
        return Err(ImportError::new(first, format!("{} has no end; close it with ;", words.join(" "))));
    }
    Ok(open.pop().unwrap_or_default())
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    /// The next token, and the line that it begins in.
    fn token(&mut self) -> Result<Option<(usize, Token)>, ImportError> {
        loop {
            let Some(c) = self.chars.peek().copied() else { return Ok(None) };
            let line = self.line;
            match c {
                _ if c.is_whitespace() => {
                    self.next();
                }
                '#' => while self.next().is_some_and(|c| c != '\n') {},
                ';' | '{' | '}' => {
                    self.next();
                    let token = match c {
                        ';' => Token::End,
                        '{' => Token::Open,
                        _ => Token::Close,
                    };
                    return Ok(Some((line, token)));
                }
                '"' | '\'' => {
                    self.next();
                    return self.quoted(c, line).map(|word| Some((line, Token::Word(word))));
                }
                _ => return Ok(Some((line, Token::Word(self.word())))),
            }
        }
    }

    fn quoted(&mut self, quote: char, line: usize) -> Result<String, ImportError> {
        let mut word = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(word),
                Some('\\') => self.escaped(&mut word),
                Some(c) => word.push(c),
                None => {
                    return Err(ImportError::new(
                        line,
                        format!("a quoted text has no end; close it with {quote}"),
                    ));
                }
            }
        }
    }

    /// What stands behind a backslash. Whoever reads the word may know more escapes, so that others stay.
    fn escaped(&mut self, word: &mut String) {
        match self.next() {
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            other => word.extend(std::iter::once('\\').chain(other)),
        }
    }

    /// Up to what ends a word; `${name}` is part of one.
    fn word(&mut self) -> String {
        let mut word = String::new();
        let mut variable = false;
        while let Some(c) = self.chars.peek().copied() {
            let braces = c == '{' && word.ends_with('$') || c == '}' && variable;
            if c.is_whitespace() || c == ';' || matches!(c, '{' | '}') && !braces {
                break;
            }
            variable = braces && c == '{' || variable && c != '}';
            self.next();
            match (c, self.chars.peek()) {
                // What would end the word is part of it.
                ('\\', Some(c)) if c.is_whitespace() || matches!(c, ';' | '{' | '}') => {
                    word.extend(self.next())
                }
                ('\\', _) => self.escaped(&mut word),
                _ => word.push(c),
            }
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_comments_quotes_and_variables() {
        let text = "a 1; # one\nb \"x y;\" 'z\\'' {\n  c\n  ${d}e f\\ g; ;\n}\n";
        let directives = read(text).unwrap();
        let [a, b] = directives.as_slice() else { panic!("{directives:?}") };
        assert_eq!((a.words.join("|").as_str(), b.words.join("|").as_str()), ("a|1", "b|x y;|z'"));
        assert_eq!((b.line, b.last, b.inside()[0].line, b.inside()[0].last), (2, 5, 3, 4));
        assert_eq!(b.inside()[0].words, ["c", "${d}e", "f g"]);
    }

    #[test]
    fn escapes_are_signs_or_stay_for_whoever_knows_them() {
        let word = |text: &str| read(&format!("a {text};")).unwrap()[0].words[1].clone();
        assert_eq!(word(r#""P\r\n\t\\\"\x80\d""#), "P\r\n\t\\\"\\x80\\d");
        assert_eq!(word(r"P\n\;\ \.\x80"), "P\n; \\.\\x80");
    }

    #[test]
    fn what_has_no_end_is_an_error_with_its_line() {
        let error = |text: &str| read(text).unwrap_err().to_string();
        assert!(error("a;\nb {\n").contains("line 2"));
        assert!(error("a;\n}\n").contains("line 2"));
        assert!(error("\na 'b;\n").contains("line 2"));
        assert!(error("a { b }").contains("b has no end"));
        assert!(error("a").contains("close it with ;"));
        assert!(error("{ }").contains("no name"));
        assert!(error(&"a {".repeat(1000)).contains("deep"));
    }
}
