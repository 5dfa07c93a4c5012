//! Comments: lines of a file by number and text, and below them what to do.

use std::fmt::Write;

use crate::account::{Account, Id, Note};

/// Widest line.
const WIDTH: usize = 118;

/// A paragraph.
pub fn lines(text: &str) -> String {
    wrap("# ", text)
}

/// A paragraph with something before each line.
fn wrap(before: &str, text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from(before);
    for word in text.split_whitespace() {
        if line.len() > before.len() && line.len() + 1 + word.len() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = before.into();
        }
        if line.len() > before.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

/// Notes in the order of the file; those with the same remedy have it once.
pub fn notes(account: &mut Account, notes: &[Note]) -> String {
    let mut groups: Vec<(&str, Vec<Id>)> = Vec::new();
    for Note { at, remedy } in notes {
        // What is on the line of the item that it is like has been said with that.
        let line = account.item(*at).line;
        let (ids, said): (Vec<Id>, Vec<Id>) =
            account.all_like(*at).into_iter().partition(|id| id == at || account.item(*id).line != line);
        said.into_iter().for_each(|id| account.name(id));
        match groups.iter_mut().find(|(other, _)| other == remedy) {
            Some((_, all)) => all.extend(ids),
            None => groups.push((remedy, ids)),
        }
    }
    for (_, ids) in &mut groups {
        ids.sort_unstable();
        ids.dedup();
    }
    groups.sort_by_key(|(_, ids)| ids.first().map(|id| account.item(*id).line));
    let mut out = String::new();
    for (remedy, ids) in groups {
        for id in ids {
            account.name(id);
            let item = account.item(id);
            let place = match item.last == item.line {
                true => format!("line {}", item.line),
                false => format!("lines {}-{}", item.line, item.last),
            };
            // Writing to a string doesn't fail.
            let _ = writeln!(out, "# {place}: {}", item.text);
        }
        out.push_str(&wrap("#   ", remedy));
    }
    out
}

/// Each line as a comment.
pub fn turned_off(text: &str) -> String {
    let off = |line: &str| match line.is_empty() {
        true => "#\n".to_string(),
        false if line.starts_with('#') => format!("{line}\n"),
        false => format!("# {line}\n"),
    };
    text.lines().map(off).collect()
}
