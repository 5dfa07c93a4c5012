//! Words and blocks of keepalived's syntax: a directive a line, `#` and `!` begin comments, a block is between
//! braces, a backslash at the end goes on with the next line. `$NAME=VALUE` declares a parameter, which `$NAME`
//! and `${NAME}` stand for; a line that only some machines have begins with `@word`, which is its name here.

use std::collections::BTreeMap;

use crate::{ImportError, directive::Directive};

/// A line that is no directive of a block.
pub struct Odd {
    pub line: usize,
    pub last: usize,
    pub text: String,
    pub remedy: &'static str,
}

/// How often parameters are looked for in what others stood for.
const DEEPEST: usize = 8;
/// Longest line, once parameters have been put in.
const LONGEST: usize = 65_536;

/// Directives, and lines that are about the file itself.
///
/// # Errors
/// A block or a quoted text has no end.
pub fn read(text: &str) -> Result<(Vec<Directive>, Vec<Odd>), ImportError> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    let mut odd = Vec::new();
    let mut tokens = Vec::new();
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    while let Some((number, line)) = lines.next() {
        let (mut line, mut last) = (line.to_string(), number);
        while let Some(begun) = line.strip_suffix('\\') {
            let Some((_, next)) = lines.next() else { break };
            line = format!("{begun} {next}");
            last += 1;
        }
        let trimmed = line.trim();
        if let Some((name, value)) = definition(trimmed) {
            let many = value.contains(['{', '}']);
            let remedy = match many {
                true => {
                    "Parameters of several lines aren't read: put the lines in the place of the parameter."
                }
                false => "Its value stands wherever the parameter did.",
            };
            odd.push(Odd { line: number, last, text: trimmed.into(), remedy });
            parameters.insert(name, value);
            continue;
        }
        tokens.extend(words(&replaced(&line, &parameters), number)?);
        tokens.push(Token { line: last, text: "\n".into(), quoted: false });
    }
    Ok((tree(tokens)?, odd))
}

/// `$NAME=VALUE`
fn definition(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    named.then(|| (name.to_string(), value.trim().to_string()))
}

/// A line with parameters replaced by their values.
fn replaced(line: &str, parameters: &BTreeMap<String, String>) -> String {
    let mut line = line.to_string();
    for _ in 0..DEEPEST {
        let once = replaced_once(&line, parameters);
        if once == line || once.len() > LONGEST {
            break;
        }
        line = once;
    }
    line
}

fn replaced_once(line: &str, parameters: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(start) = rest.find('$') {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let bare = &after[1..];
        let (name, end) = match bare.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 3),
            None => {
                let length = bare.find(|c| !named(c)).unwrap_or(bare.len());
                (&bare[..length], length + 1)
            }
        };
        match parameters.get(name) {
            Some(value) => {
                out.push_str(value);
                rest = &after[end..];
            }
            None => {
                out.push('$');
                rest = bare;
            }
        }
    }
    out.push_str(rest);
    out
}

/// A word, a brace or the end of a line.
#[derive(Debug)]
struct Token {
    line: usize,
    text: String,
    quoted: bool,
}

fn words(text: &str, line: usize) -> Result<Vec<Token>, ImportError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.peek().copied() {
        let mut word = String::new();
        match c {
            _ if c.is_whitespace() => {
                chars.next();
                continue;
            }
            '#' | '!' => break,
            '"' | '\'' => {
                chars.next();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some(inner) => word.push(inner),
                        None => {
                            return Err(ImportError::new(
                                line,
                                format!("a quoted text has no end; close it with {c}"),
                            ));
                        }
                    }
                }
                tokens.push(Token { line, text: word, quoted: true });
            }
            '{' | '}' => {
                chars.next();
                tokens.push(Token { line, text: c.into(), quoted: false });
            }
            _ => {
                while let Some(c) =
                    chars.next_if(|c| !c.is_whitespace() && !matches!(c, '{' | '}' | '#' | '!'))
                {
                    word.push(c);
                }
                tokens.push(Token { line, text: word, quoted: false });
            }
        }
    }
    Ok(tokens)
}

/// Directives and their blocks.
fn tree(tokens: Vec<Token>) -> Result<Vec<Directive>, ImportError> {
    // Blocks that are open, the innermost last: what is in them so far. Below them all, the file.
    let mut open: Vec<Vec<Directive>> = vec![Vec::new()];
    let mut begun: Vec<Directive> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut first = 1;
    for Token { line, text, quoted } in tokens {
        match text.as_str() {
            "\n" if !quoted => {
                if let Some(words) = some(&mut words) {
                    close(&mut open, Directive { last: line, ..Directive::new(first, words) });
                }
            }
            "{" if !quoted => {
                // A brace on a line of its own belongs to the directive above it.
                let directive = match some(&mut words) {
                    Some(words) => Directive::new(first, words),
                    None => {
                        open.last_mut().and_then(Vec::pop).filter(|last| last.block.is_none()).ok_or_else(
                            || ImportError::new(line, "a block has no name; write one before its {"),
                        )?
                    }
                };
                begun.push(directive);
                open.push(Vec::new());
            }
            "}" if !quoted => {
                if let Some(words) = some(&mut words) {
                    close(&mut open, Directive::new(first, words));
                }
                let (Some(directive), Some(block)) = (begun.pop(), open.pop()) else {
                    return Err(ImportError::new(line, "a } closes nothing; take it away"));
                };
                close(&mut open, Directive { last: line, block: Some(block), ..directive });
            }
            _ => {
                if words.is_empty() {
                    first = line;
                }
                words.push(text);
            }
        }
    }
    if let Some(directive) = begun.pop() {
        return Err(ImportError::new(
            directive.line,
            format!("the block of {} has no end; close it with }}", directive.name()),
        ));
    }
    Ok(open.pop().unwrap_or_default())
}

fn some(words: &mut Vec<String>) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| std::mem::take(words))
}

fn close(open: &mut [Vec<Directive>], directive: Directive) {
    if let Some(block) = open.last_mut() {
        block.push(directive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_comments_quotes_and_parameters() {
        let text = "$NET=10.0\n$IP=${NET}.0\nvirtual_server ${IP}.1 80 { # one\n  delay_loop 6 ! seconds\n  \
             quorum_up \"/bin/a # b\"\n  real_server $IP.2 80\n  {\n    weight 1 }\n}\n@main x {\n}\n";
        let (directives, odd) = read(text).unwrap();
        let [one, main] = directives.as_slice() else { panic!("{directives:?}") };
        assert_eq!(one.words, ["virtual_server", "10.0.0.1", "80"]);
        assert_eq!((one.line, one.last, main.text().as_str()), (3, 9, "@main x { ... }"));
        let inside: Vec<String> = one.inside().iter().map(Directive::text).collect();
        assert_eq!(inside, ["delay_loop 6", "quorum_up /bin/a # b", "real_server 10.0.0.2 80 { ... }"]);
        assert_eq!(odd.iter().map(|odd| odd.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_has_no_end_is_an_error_with_its_line() {
        let error = |text| read(text).map(|_| ()).unwrap_err().to_string();
        assert!(error("a\nb {\n").contains("line 2"));
        assert!(error("a }\n").contains("line 1"));
        assert!(error("\na \"b\n").contains("line 2"));
        assert!(error("{\n}\n").contains("no name"));
    }
}
