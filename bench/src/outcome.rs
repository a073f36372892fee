//! A line of the table: what was measured of all sides, how far ahead we are, and whether that is what was wanted. A
//! ratio above 1 always means that we are ahead.

use serde_json::{Map, Value, json};

use crate::turns::Measured;

/// In what a case is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    RequestsPerSecond,
    RecordsPerSecond,
    MegabytesPerSecond,
    Megabytes,
    BytesPerRecord,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::RequestsPerSecond => "requests/s",
            Self::RecordsPerSecond => "records/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::Megabytes => "MB",
            Self::BytesPerRecord => "bytes/record",
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Self::RequestsPerSecond | Self::RecordsPerSecond | Self::MegabytesPerSecond)
    }
}

/// What is wanted of a case.
#[derive(Clone, Debug)]
pub enum Goal {
    /// To be so many times as good as this side.
    Ahead(String, f64),
    /// That our figure, whose unit is one of less is better, is no larger.
    AtMost(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub case: String,
    pub unit: Unit,
    pub ours: Measured,
    pub peers: Vec<Measured>,
    pub goals: Vec<Goal>,
    pub notes: Vec<String>,
}

impl Outcome {
    /// The first side is ours.
    pub fn new(case: &str, unit: Unit, measured: Vec<Measured>) -> Self {
        let mut measured = measured.into_iter();
        let ours = measured.next().expect("a case measures at least us");
        Self { case: case.to_owned(), unit, ours, peers: measured.collect(), goals: Vec::new(), notes: Vec::new() }
    }

    #[must_use]
    pub fn ahead(mut self, of: &str, times: f64) -> Self {
        self.goals.push(Goal::Ahead(of.to_owned(), times));
        self
    }

    #[must_use]
    pub fn at_most(mut self, figure: f64) -> Self {
        self.goals.push(Goal::AtMost(figure));
        self
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// How many times as good we are; above 1, we are ahead.
    pub fn ratio(&self, peer: &Measured) -> f64 {
        if self.unit.more_is_better() { self.ours.median / peer.median } else { peer.median / self.ours.median }
    }

    fn ratio_to(&self, name: &str) -> Option<f64> {
        self.peers.iter().find(|peer| peer.name == name).map(|peer| self.ratio(peer))
    }

    fn holds(&self, goal: &Goal) -> Option<bool> {
        match goal {
            Goal::Ahead(name, times) => self.ratio_to(name).map(|ratio| ratio >= *times),
            Goal::AtMost(most) => Some(self.ours.median <= *most),
        }
    }

    /// Whether every goal holds; `None` if none is missed, but one is beside a peer that is missing, or there is none.
    pub fn met(&self) -> Option<bool> {
        let each: Vec<_> = self.goals.iter().map(|goal| self.holds(goal)).collect();
        if each.contains(&Some(false)) {
            return Some(false);
        }
        (!each.is_empty() && !each.contains(&None)).then_some(true)
    }

    /// What is wanted, in words.
    pub fn goal(&self) -> String {
        let words = |goal: &Goal| match goal {
            Goal::Ahead(name, times) => format!("≥ {} × {name}", trimmed(*times)),
            Goal::AtMost(most) => format!("≤ {} {}", trimmed(*most), self.unit.name()),
        };
        self.goals.iter().map(words).collect::<Vec<_>>().join("; ")
    }

    /// The goals that do not hold, each with what it is instead.
    pub fn missed(&self) -> Vec<String> {
        let words = |goal: &Goal| match goal {
            Goal::Ahead(name, times) => {
                let ratio = self.ratio_to(name).unwrap_or_default();
                format!("{} × {name}, wanted {}", figure(ratio), trimmed(*times))
            }
            Goal::AtMost(most) => {
                let unit = self.unit.name();
                format!("{} {unit}, wanted {} {unit} at most", figure(self.ours.median), trimmed(*most))
            }
        };
        self.goals.iter().filter(|goal| self.holds(goal) == Some(false)).map(words).collect()
    }

    /// The sides that a goal names and that were not measured.
    pub fn missing(&self) -> Vec<&str> {
        let name = |goal: &'_ Goal| match goal {
            Goal::Ahead(name, _) if self.ratio_to(name).is_none() => Some(name.clone()),
            _ => None,
        };
        let missing: Vec<String> = self.goals.iter().filter_map(name).collect();
        let named = self.goals.iter().filter_map(|goal| match goal {
            Goal::Ahead(name, _) if missing.contains(name) => Some(name.as_str()),
            _ => None,
        });
        named.collect()
    }

    /// As the results file has it.
    pub fn to_json(&self, run: &Value) -> Value {
        let map = |of: &dyn Fn(&Measured) -> Value| -> Map<String, Value> {
            self.peers.iter().map(|peer| (peer.name.clone(), of(peer))).collect()
        };
        let all = || std::iter::once(&self.ours).chain(&self.peers);
        let latencies: Map<String, Value> =
            all().filter_map(|side| Some((side.name.clone(), json!(side.latencies?)))).collect();
        let spread: Map<String, Value> =
            all().map(|side| (side.name.clone(), json!([rounded(side.least), rounded(side.most)]))).collect();
        json!({
            "case": self.case,
            "ours": rounded(self.ours.median),
            "unit": self.unit.name(),
            "peers": map(&|peer| json!(rounded(peer.median))),
            "ratio": map(&|peer| json!(rounded(self.ratio(peer)))),
            "goal": self.goal(),
            "met": self.met(),
            "missed": self.missed(),
            "missing": self.missing(),
            "spread": spread,
            "latency_ns": latencies,
            "notes": self.notes,
            "run": run,
        })
    }
}

/// Four digits are more than the machine can tell.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number, as people read it: `10,000`.
pub fn count(value: usize) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let comma = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3) && !digits[..at].ends_with('-');
    digits.char_indices().flat_map(|(at, digit)| comma(at).then_some(',').into_iter().chain([digit])).collect()
}

/// Three digits, as people read them: `0.943`, `12.3`, `4,630`.
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else if value.abs() >= 1.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, f)| (w, format!(".{f}")));
    grouped(whole) + &fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(unit: Unit, ours: f64, peer: f64) -> Outcome {
        Outcome::new("case", unit, vec![Measured::once("commonhold", ours), Measured::once("redis", peer)])
    }

    #[test]
    fn a_ratio_above_one_means_that_we_are_ahead_whatever_the_unit() {
        for ahead in [outcome(Unit::Microseconds, 1.0, 2.0), outcome(Unit::RequestsPerSecond, 2.0, 1.0)] {
            assert!((ahead.ratio(&ahead.peers[0]) - 2.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_goal_that_does_not_hold_is_told() {
        let missed = outcome(Unit::Microseconds, 1.0, 1.0).ahead("redis", 1.1).at_most(0.5);
        assert_eq!(missed.met(), Some(false));
        assert_eq!(missed.missed(), ["1.00 × redis, wanted 1.1", "1.00 µs, wanted 0.5 µs at most"]);
        assert_eq!(outcome(Unit::Microseconds, 1.0, 1.2).ahead("redis", 1.1).met(), Some(true));
    }

    #[test]
    fn a_goal_beside_a_missing_peer_is_neither_met_nor_missed() {
        let unknown = outcome(Unit::Microseconds, 1.0, 2.0).ahead("redis", 1.1).ahead("lightrag", 40.0);
        assert_eq!(unknown.met(), None);
        assert_eq!(unknown.missing(), ["lightrag"]);
        assert_eq!(unknown.at_most(0.1).met(), Some(false));
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [0.9432, 1.234, 56.78, 463.2, 1_234_567.0].map(figure),
            ["0.943", "1.23", "56.8", "463", "1,234,567"]
        );
    }
}
