//! What was found, round by round.

use std::collections::BTreeMap;

use crate::measure::{Figure, Figures};
use crate::place::Where;
use crate::system::System;

/// All that a run has found.
#[derive(Debug)]
pub struct Report {
    /// On which machine, in words.
    pub machine: Vec<String>,
    /// Rounds that were asked for on loopback and wire.
    pub rounds: usize,
    /// Rounds that were asked for on the paths.
    pub path_rounds: usize,
    /// Whether measures were shortened.
    pub short: bool,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// The figures.
    pub results: Results,
}

/// Figures by place and system.
#[derive(Debug, Default)]
pub struct Results(BTreeMap<(Where, System, Figure), Vec<f64>>);

impl Results {
    /// Adds what one measure has found in one round.
    pub fn add(&mut self, place: Where, system: System, figures: Figures) {
        for (figure, value) in figures {
            self.0.entry((place, system, figure)).or_default().push(value);
        }
    }

    /// The values of all rounds.
    pub fn rounds(&self, place: Where, system: System, figure: Figure) -> Option<&[f64]> {
        self.0.get(&(place, system, figure)).map(Vec::as_slice)
    }

    /// The median of all rounds.
    pub fn median(&self, place: Where, system: System, figure: Figure) -> Option<f64> {
        self.rounds(place, system, figure).map(median)
    }

    /// How many times the figure of `base` that of `system` is: the median of the rounds' ratios, so that a machine
    /// that was busy for one round does not distort it.
    pub fn ratio(&self, place: Where, system: System, base: System, figure: Figure) -> Option<f64> {
        Some(ratio(self.rounds(place, system, figure)?, self.rounds(place, base, figure)?))
    }

    /// Everything, in the order of place, system and figure.
    pub fn iter(&self) -> impl Iterator<Item = (Where, System, Figure, &[f64])> {
        self.0.iter().map(|((place, system, figure), values)| (*place, *system, *figure, values.as_slice()))
    }
}

/// The median of the ratios, round by round.
pub fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>())
}

/// The median; of an even number of values the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [lower, upper] = [sorted.len().saturating_sub(1) / 2, sorted.len() / 2];
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    (middle(lower) + middle(upper)) / 2.0
}

/// The least and the greatest.
pub fn extremes(values: &[f64]) -> [f64; 2] {
    [values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max)]
}

/// How evenly something is shared: Jain's index, which is 1 if all get the same, and 1/n if one of n gets everything.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (squares * shares.len() as f64)
}
