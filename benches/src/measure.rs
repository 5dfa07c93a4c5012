//! What every experiment yields: series of rounds, and the figures made of them.

use serde::{Deserialize, Serialize};

/// One figure of one contender, measured in several rounds that took turns with the other contenders'.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// What was measured, as in `established`, `new connections`.
    pub experiment: String,
    /// Who was measured.
    pub contender: String,
    /// Size that the experiment varies, as in `("flows", 131072.0)`.
    pub at: Option<(String, f64)>,
    /// What the figures are, as in `ns`, `1/s`, `bytes`.
    pub unit: String,
    /// A figure a round.
    pub rounds: Vec<f64>,
    /// The yardstick's figure beside each, measured just before it; empty if rounds are to be compared as a whole.
    pub beside: Vec<f64>,
}

impl Series {
    /// Median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.rounds)
    }

    /// The size, 0 if there is none.
    pub fn size(&self) -> f64 {
        self.at.as_ref().map_or(0.0, |(_, size)| *size)
    }
}

/// Series in the order in which they were begun.
#[derive(Default)]
pub struct Table(pub Vec<Series>);

impl Table {
    /// Adds a round to a series, the first of which begins it.
    pub fn note(
        &mut self,
        experiment: &str,
        contender: &str,
        at: Option<(String, f64)>,
        unit: &str,
        value: f64,
    ) {
        self.series(experiment, contender, at, unit).rounds.push(value);
    }

    /// The same, with the yardstick's figure from just before.
    pub fn note_beside(
        &mut self,
        experiment: &str,
        contender: &str,
        at: Option<(String, f64)>,
        unit: &str,
        (value, yardstick): (f64, f64),
    ) {
        let series = self.series(experiment, contender, at, unit);
        series.rounds.push(value);
        series.beside.push(yardstick);
    }

    fn series(
        &mut self,
        experiment: &str,
        contender: &str,
        at: Option<(String, f64)>,
        unit: &str,
    ) -> &mut Series {
        let known =
            self.0.iter().position(|s| s.experiment == experiment && s.contender == contender && s.at == at);
        let index = known.unwrap_or_else(|| {
            let (experiment, contender, unit) = (experiment.into(), contender.into(), unit.into());
            self.0.push(Series { experiment, contender, at, unit, rounds: Vec::new(), beside: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[index]
    }
}

/// Median; the mean of the middle two if their number is even. NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Mean of the middle half: finer than a median where figures are whole nanoseconds, and as deaf to the odd one. NaN
/// of nothing.
pub fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 4;
    let kept = sorted.get(cut..sorted.len() - cut).unwrap_or_default();
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// The least and the greatest.
pub fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}
