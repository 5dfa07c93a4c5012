//! What `-R` reads: a command a line, with or without the program's name in front.

use crate::{Change, Command, Refusal};

/// A change, and the line that asks for it, from 1.
pub type Line = (usize, Change);

/// Reads all of it. Empty lines, and lines that begin with `#`, are passed over. `--set` is about services that the
/// other lines may add, and comes last.
///
/// # Errors
/// The first line that can't be understood, or asks for something that changes nothing.
pub fn read(text: &str) -> Result<Vec<Line>, Refusal> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let mut words: Vec<&str> = line.split_whitespace().map(unquoted).collect();
        match words.first() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some(word) if word.rsplit('/').next() == Some("ipvsadm") => drop(words.remove(0)),
            Some(_) => {}
        }
        match Command::parse(&words).map_err(|refusal| refusal.at(Some(number)))? {
            Command::Change(change) => lines.push((number, change)),
            Command::List(_) | Command::Save | Command::Restore | Command::Help => {
                let message = "it changes nothing; leave it out";
                return Err(Refusal::usage(message).at(Some(number)));
            }
        }
    }
    lines.sort_by_key(|(_, change)| matches!(change, Change::Timeouts(_)));
    Ok(lines)
}

/// A word without the quotes that are around it.
fn unquoted(word: &str) -> &str {
    let inner = |quote| word.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(word)
}
