//! How connections are spread, as bars.

use super::clients::Spread;

/// The longest bar, in characters.
const LONGEST: usize = 30;

/// A heading, what it is about, and the colour of its bars.
pub struct Column<'a> {
    /// Whose connections they are.
    pub heading: &'a str,
    /// By backend.
    pub spread: &'a Spread,
    /// SGR code of the colour.
    pub colour: u8,
}

/// A line for each backend that has connections or a note, and how far the fullest is above the mean where `compared`
/// backends are in use.
pub fn bars(columns: &[Column], notes: &[(&str, &str)], compared: usize, colours: bool) -> String {
    let note = |backend: &str| notes.iter().find(|(noted, _)| *noted == backend).map_or("", |(_, note)| note);
    let most = columns.iter().flat_map(|c| c.spread.values()).max().copied().unwrap_or(0).max(1);
    let cell = |column: &Column, backend: &str| {
        let count = column.spread.get(backend).copied().unwrap_or(0);
        let length = (count * LONGEST).div_ceil(most);
        let (bar, blank) = ("█".repeat(length), " ".repeat(LONGEST - length));
        match colours {
            true => format!("{count:>5} \x1b[{}m{bar}\x1b[0m{blank}", column.colour),
            false => format!("{count:>5} {bar}{blank}"),
        }
    };
    let mut lines = vec![line("", columns.iter().map(|c| format!("      {:<LONGEST$}", c.heading)), "")];
    let Some(first) = columns.first() else { return String::new() };
    for backend in first.spread.keys() {
        let open: usize = columns.iter().filter_map(|c| c.spread.get(backend)).sum();
        if open > 0 || !note(backend).is_empty() {
            lines.push(line(backend, columns.iter().map(|c| cell(c, backend)), note(backend)));
        }
    }
    if compared > 0 {
        let above = columns.iter().map(|c| format!("      {:<LONGEST$}", above(c.spread, compared)));
        lines.push(line("", above, ""));
    }
    lines.join("\n")
}

fn line(name: &str, cells: impl Iterator<Item = String>, note: &str) -> String {
    let cells: Vec<String> = cells.collect();
    format!("{name:<3}{}  {note}", cells.join("   ")).trim_end().into()
}

fn above(spread: &Spread, compared: usize) -> String {
    let mean = spread.values().sum::<usize>() as f64 / compared as f64;
    let most = spread.values().max().copied().unwrap_or(0) as f64;
    if most <= mean {
        return "even".into();
    }
    format!("fullest: {:.0} % above the mean", (most / mean - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_counts_and_lines_end_with_their_text() {
        let even: Spread = [("b1", 50), ("b2", 50), ("b3", 0)].into();
        let other: Spread = [("b1", 75), ("b2", 25), ("b3", 0)].into();
        let columns = [
            Column { heading: "random", spread: &other, colour: 33 },
            Column { heading: "Flowpin", spread: &even, colour: 36 },
        ];
        let text = bars(&columns, &[("b2", "draining")], 2, false);
        let lines: Vec<&str> = text.lines().collect();
        let bar = |n: usize| format!("{:<LONGEST$}", "█".repeat(n));
        assert_eq!(lines.len(), 4, "b3 has none: {text}");
        assert_eq!(lines[1], format!("b1    75 {}      50 {}", bar(30), bar(20)).trim_end());
        assert_eq!(lines[2], format!("b2    25 {}      50 {}  draining", bar(10), bar(20)));
        assert!(lines[3].contains("fullest: 50 % above the mean") && lines[3].ends_with("   even"));
        assert!(bars(&columns, &[], 2, true).contains("\x1b[33m█"));
    }
}
