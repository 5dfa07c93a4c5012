//! The only printer: tables for people, JSON for scripts.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use tabled::{builder::Builder, settings::Style};

/// What to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// Standard output, in a format.
pub struct Out {
    format: Format,
}

impl Out {
    /// In this format.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// JSON of `value`, or a table of rows under `head`.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn table<T: Serialize, const N: usize>(
        &self,
        value: &T,
        head: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> io::Result<()> {
        if self.format == Format::Json {
            return self.json(value);
        }
        let mut builder = Builder::default();
        builder.push_record(head);
        rows.into_iter().for_each(|row| builder.push_record(row));
        let mut table = builder.build();
        table.with(Style::blank());
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        self.raw(format!("{}\n", lines.join("\n")).as_bytes())
    }

    /// JSON of `value`, or the sentence.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn say<T: Serialize>(&self, value: &T, sentence: impl Display) -> io::Result<()> {
        if self.format == Format::Json {
            self.json(value)
        } else {
            self.raw(format!("{sentence}\n").as_bytes())
        }
    }

    /// Is a table wanted?
    pub fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// JSON.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn json<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.raw(&text)
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// One line on what is wrong.
pub fn error(text: &str) {
    // Nobody to tell if it can't be written.
    let _ = writeln!(io::stderr(), "flowpin: {text}");
}

/// The agent's log, to standard error; RUST_LOG says how much.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// `17.3 MiB`
pub fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, 0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    while value >= 1024.0 && unit < units.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `3h 12m 5s`
pub fn seconds(s: f64) -> String {
    humantime::format_duration(Duration::from_secs(s.max(0.0) as u64)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(u64::MAX)],
            ["0 B", "1023 B", "1.5 KiB", "16384.0 PiB"]
        );
        assert_eq!([seconds(-1.0), seconds(11_525.9)], ["0s", "3h 12m 5s"]);
    }
}
