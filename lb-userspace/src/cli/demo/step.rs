//! What a demo tells: steps, each with what is run in it and what comes of it. Text as it happens, or a line of JSON
//! for each step.

use std::{io::IsTerminal, time::Duration};

use serde::Serialize;

use super::{
    bars::{Column, bars},
    clients::{Spread, Traffic},
};
use crate::cli::{Failure, output::Printer};

/// What there is time to read in between two steps.
const READING: Duration = Duration::from_secs(4);

/// Open connections by backend.
#[derive(Clone, Default, Serialize)]
pub struct Counts {
    /// Through Flowpin.
    pub flowpin: Spread,
    /// Through kube-proxy's rules; `None`: they aren't shown.
    pub iptables: Option<Spread>,
}

/// A step.
#[derive(Default, Serialize)]
struct Step {
    step: &'static str,
    title: String,
    /// What was run, as an operator would.
    commands: Vec<String>,
    connections: Option<Counts>,
    traffic: Option<Traffic>,
}

/// Tells of a demo.
pub struct Teller {
    printer: Printer,
    /// Somebody reads it as it comes.
    watched: bool,
    colours: bool,
    told: usize,
    step: Step,
}

impl Teller {
    /// By this printer.
    pub fn new(printer: Printer) -> Self {
        let watched = std::io::stdout().is_terminal() && !printer.is_json();
        let colours = watched && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Self { printer, watched, colours, told: 0, step: Step::default() }
    }

    /// Begins a step. `name` is what scripts know it by.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn begin(&mut self, name: &'static str, title: &str) -> anyhow::Result<()> {
        self.told += 1;
        self.step = Step { step: name, title: title.into(), ..Step::default() };
        let heading = format!("{}. {title}", self.told);
        self.text(&format!("\n{}", self.bold(&heading)))
    }

    /// A paragraph, as it is.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        if self.printer.is_json() {
            return Ok(());
        }
        Ok(self.printer.line(&(), |()| text.into()).map_err(Failure::Output)?)
    }

    /// A paragraph of the step.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn say(&self, text: &str) -> anyhow::Result<()> {
        let lines: Vec<String> = text.lines().map(|line| format!("   {line}")).collect();
        self.text(&lines.join("\n"))
    }

    /// A command that is run.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn runs(&mut self, line: &str) -> anyhow::Result<()> {
        self.step.commands.push(line.into());
        self.say(&self.bold(&format!("# {line}")))
    }

    /// Open connections. `notes` go to lines of backends. How far the fullest is above the mean is said over `compared`
    /// of them, or not if that is 0.
    ///
    /// # Errors
    /// stdout can't be written.
    pub fn counts(&mut self, counts: Counts, notes: &[(&str, &str)], compared: usize) -> anyhow::Result<()> {
        let random = counts.iptables.iter().map(|spread| Column {
            heading: "iptables, at random",
            spread,
            colour: 33,
        });
        let flowpin = Column { heading: "Flowpin", spread: &counts.flowpin, colour: 36 };
        let columns: Vec<Column> = random.chain([flowpin]).collect();
        self.say(&bars(&columns, notes, compared, self.colours))?;
        self.step.connections = Some(counts);
        Ok(())
    }

    /// How the exchange of data goes.
    pub fn traffic(&mut self, traffic: Traffic) {
        self.step.traffic = Some(traffic);
    }

    /// Ends a step, and leaves time to read it.
    ///
    /// # Errors
    /// stdout can't be written.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        if self.printer.is_json() {
            self.printer.line(&self.step, |_| String::new()).map_err(Failure::Output)?;
        }
        if self.watched {
            tokio::time::sleep(READING).await;
        }
        Ok(())
    }

    fn bold(&self, text: &str) -> String {
        if self.colours { format!("\x1b[1m{text}\x1b[0m") } else { text.into() }
    }
}
