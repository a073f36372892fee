//! The chart: how many times as good we are as each side, on a logarithmic scale, one group a case. Right of the line at
//! 1 we are ahead; a black mark is where the goal lies.

use svg::Document;
use svg::node::element::{Line, Rectangle, Text, Title};

use crate::machine::Run;
use crate::outcome::{Goal, Outcome, figure};

const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 90.0;
const HEAD: f64 = 96.0;
const FOOT: f64 = 34.0;
const BAR: f64 = 15.0;
const GAP: f64 = 11.0;
const COLOURS: [(&str, &str); 4] =
    [("redis", "#c0392b"), ("lmdb", "#b9770e"), ("lightrag", "#2471a3"), ("bare", "#7f8c8d")];

/// The chart of all outcomes that have somebody beside them.
pub fn draw(run: &Run, outcomes: &[Outcome]) -> String {
    let shown: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.peers.is_empty()).collect();
    let bars: usize = shown.iter().map(|outcome| outcome.peers.len()).sum();
    let height = HEAD + FOOT + bars as f64 * BAR + shown.len() as f64 * GAP;
    let axis = Axis::over(&shown);
    let mut chart = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("font-family", "system-ui, sans-serif")
        .set("font-size", 12)
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "white"))
        .add(text(16.0, 26.0, "start", "Commonhold beside its peers: how many times as good").set("font-size", 18))
        .add(text(16.0, 46.0, "start", &subtitle(run)).set("fill", "#444"))
        .add(text(16.0, 62.0, "start", &run.versions).set("fill", "#444"));
    let bottom = height - FOOT;
    for power in axis.least..=axis.most {
        let (at, strong) = (axis.at(10f64.powi(power)), power == 0);
        chart = chart
            .add(line(at, HEAD - 6.0, bottom, if strong { "#222" } else { "#ddd" }))
            .add(text(at, HEAD - 12.0, "middle", &format!("{} ×", figure_of_power(power))).set("fill", "#444"))
            .add(text(at, bottom + 16.0, "middle", &format!("{} ×", figure_of_power(power))).set("fill", "#444"));
    }
    let mut top = HEAD;
    for outcome in shown {
        let label = format!("{}  {} {}", outcome.case, figure(outcome.ours.median), outcome.unit.name());
        let colour = if outcome.met() == Some(false) { "#c0392b" } else { "#111" };
        chart = chart.add(text(16.0, top + 12.0, "start", &label).set("fill", colour).set("font-weight", 600));
        for peer in &outcome.peers {
            let ratio = outcome.ratio(peer);
            let (one, end) = (axis.at(1.0), axis.at(ratio));
            let words = format!("{} {} ×", peer.name, figure(ratio));
            let hover = format!("{}: {} {} {}", outcome.case, peer.name, figure(peer.median), outcome.unit.name());
            let bar = Rectangle::new()
                .set("x", one.min(end))
                .set("y", top + 2.0)
                .set("width", (end - one).abs().max(1.0))
                .set("height", BAR - 4.0)
                .set("fill", colour_of(&peer.name))
                .add(Title::new(hover));
            chart = chart.add(bar);
            if let Some(goal) = goal_of(outcome, &peer.name) {
                chart = chart.add(line(axis.at(goal), top, top + BAR, "black").set("stroke-width", 2));
            }
            // Behind the goal's mark, if that is where the words would begin.
            let mark = goal_of(outcome, &peer.name).map(|goal| axis.at(goal));
            let from = one.max(end);
            let beside = mark.filter(|&mark| mark > from && mark < from + 110.0).unwrap_or(from);
            chart = chart.add(text(beside + 5.0, top + 12.0, "start", &words).set("font-size", 11));
            top += BAR;
        }
        top += GAP;
    }
    chart.to_string()
}

fn subtitle(run: &Run) -> String {
    let kind = if run.quick { ", a quick run whose figures say little" } else { "" };
    format!(
        "{}, commit {}{kind}. {}. Red: a goal is not met; a black mark: the goal.",
        run.date, run.commit, run.machine
    )
}

fn goal_of(outcome: &Outcome, peer: &str) -> Option<f64> {
    outcome.goals.iter().find_map(|goal| match goal {
        Goal::Ahead(name, times) if name == peer => Some(*times),
        _ => None,
    })
}

fn colour_of(peer: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| peer.starts_with(name)).map_or("#5b7d4a", |(_, colour)| colour)
}

fn figure_of_power(power: i32) -> String {
    let value = 10f64.powi(power);
    if power < 0 {
        return format!("{value:.*}", power.unsigned_abs() as usize);
    }
    let words = figure(value);
    words.split('.').next().unwrap_or_default().to_owned()
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> Text {
    Text::new(words).set("x", x).set("y", y).set("text-anchor", anchor)
}

fn line(x: f64, top: f64, bottom: f64, colour: &str) -> Line {
    Line::new().set("x1", x).set("x2", x).set("y1", top).set("y2", bottom).set("stroke", colour)
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    least: i32,
    most: i32,
}

impl Axis {
    fn over(outcomes: &[&Outcome]) -> Self {
        let ratios = outcomes.iter().flat_map(|outcome| outcome.peers.iter().map(|peer| outcome.ratio(peer)));
        let goals = outcomes.iter().flat_map(|outcome| outcome.goals.iter()).filter_map(|goal| match goal {
            Goal::Ahead(_, times) => Some(*times),
            Goal::AtMost(_) => None,
        });
        let powers: Vec<f64> = ratios.chain(goals).filter(|ratio| *ratio > 0.0).map(f64::log10).collect();
        let least = powers.iter().copied().fold(-1.0, f64::min).floor() as i32;
        let most = powers.iter().copied().fold(1.0, f64::max).ceil() as i32;
        Self { least, most }
    }

    fn at(&self, ratio: f64) -> f64 {
        let share = (ratio.max(1e-9).log10() - f64::from(self.least)) / f64::from(self.most - self.least);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Unit;
    use crate::turns::Measured;

    #[test]
    fn the_axis_holds_all_ratios_and_grows_by_factors() {
        let measured = vec![Measured::once("commonhold", 1.0), Measured::once("redis", 3_000.0)];
        let outcome = Outcome::new("case", Unit::Nanoseconds, measured).ahead("redis", 350.0);
        let axis = Axis::over(&[&outcome]);
        assert_eq!((axis.least, axis.most), (-1, 4));
        let step = axis.at(10.0) - axis.at(1.0);
        assert!((axis.at(100.0) - axis.at(10.0) - step).abs() < 1e-9);
    }
}
