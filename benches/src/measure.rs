//! What every experiment yields: series of rounds, and the figures made of them.

use serde::Serialize;

/// One figure of one contender, measured in several rounds that took turns with the other contenders'.
#[derive(Clone, Debug, Serialize)]
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
}

impl Series {
    /// Median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.rounds)
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
