//! The only printer: tables with human figures for people, JSON for scripts.

use std::{
    fmt::Display,
    io::{self, BufWriter, IsTerminal, Write},
    time::Duration,
};

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use tabled::{
    builder::Builder,
    settings::{Alignment, Modify, Padding, Style, object::Columns},
};

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, human figures
    Table,
    /// Stable names, numbers as numbers
    Json,
}

/// Writes results to stdout.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// In one of the formats.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints `value`, or `text` made of it for people.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn print<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, value)?;
                out.write_all(b"\n")?;
            }
            Format::Table => {
                let text = text(value);
                out.write_all(text.trim_end().as_bytes())?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()
    }

    /// Is JSON asked for?
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one of many as a line of its own, at once.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn line<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json => serde_json::to_writer(&mut out, value)?,
            Format::Table => out.write_all(text(value).trim_end().as_bytes())?,
        }
        out.write_all(b"\n")?;
        out.flush()
    }

    /// A sentence that goes with a result; for people only, on stderr, so that what is on stdout stays what was asked for.
    pub fn note(&self, sentence: impl Display) {
        if self.format == Format::Table {
            drop(writeln!(io::stderr(), "flowpin: {sentence}"));
        }
    }
}

/// Bytes as they are, for what is no text of ours (completion scripts).
///
/// # Errors
/// stdout can't be written.
pub fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// The agent's log goes to stderr; RUST_LOG says how much of it.
pub fn log_to_stderr() {
    let mut filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // They log each try to connect; what comes of them is said by the feed, and by the mesh.
    for library in ["kube_client", "async_nats"] {
        let asked = std::env::var("RUST_LOG").is_ok_and(|said| said.contains(library));
        if let (false, Ok(off)) = (asked, format!("{library}=off").parse()) {
            filter = filter.add_directive(off);
        }
    }
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
}

/// Rows under headings. A heading that begins with `>` stands over numbers, which are aligned to the right.
pub struct Table {
    right: Vec<usize>,
    builder: Builder,
}

impl Table {
    /// Without rows.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().enumerate().filter(|(_, h)| h.starts_with('>')).map(|(i, _)| i).collect();
        let mut builder = Builder::default();
        builder.push_record(headings.iter().map(|h| h.trim_start_matches('>')));
        Self { right, builder }
    }

    /// One more row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.builder.push_record(cells);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = self.builder.clone().build();
        table.with(Style::empty()).with(Padding::new(0, 3, 0, 0));
        for column in &self.right {
            table.with(Modify::new(Columns::one(*column)).with(Alignment::right()));
        }
        // Lines end where their text ends: nothing to trip over when copied or compared.
        for line in table.to_string().lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `17.25 MiB`
pub fn bytes(n: u64) -> String {
    HumanBytes(n).to_string()
}

/// `1,234,567`
pub fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// `3h12m`: the two largest units, rounded down to seconds.
pub fn duration(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.max(0.0).floor()).unwrap_or(Duration::MAX);
    humantime::format_duration(whole).to_string().split(' ').take(2).collect()
}

/// `1 connection`, `2 connections`.
pub fn plural(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `yes`, `no`.
pub fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

/// A value that may be missing.
pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [
            (0.0, "0s"),
            (-3.0, "0s"),
            (f64::NAN, "0s"),
            (59.9, "59s"),
            (61.0, "1m1s"),
            (11_520.0, "3h12m"),
            (11_527.9, "3h12m"),
            (90_061.0, "1day1h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn figures_are_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "connection"), "1 connection");
        assert_eq!(plural(0, "connection"), "0 connections");
    }

    #[test]
    fn numbers_are_aligned_to_the_right_and_lines_are_trimmed() {
        let mut table = Table::new(&["NAME", ">ACTIVE", "LAST"]);
        table.row(["app".into(), "7".into(), String::new()]);
        table.row(["longer-name".into(), "12345678".into(), "x".into()]);
        assert_eq!(
            table.to_string(),
            "NAME            ACTIVE   LAST\napp                  7\nlonger-name   12345678   x\n"
        );
    }
}
