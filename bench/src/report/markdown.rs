//! The table.

use std::fmt::Write as _;

use crate::latencies::Percentiles;
use crate::machine::Run;
use crate::outcome::{Outcome, figure};

/// A page with the table, the latencies and all notes.
pub fn page(run: &Run, missing: &[String], outcomes: &[Outcome], chart: &str) -> String {
    let mut page = format!("# Commonhold beside its peers, {}\n\n", run.date);
    if run.quick {
        page.push_str("**A quick run: small sizes, few rounds. Its figures say little.**\n\n");
    }
    let _ =
        writeln!(page, "Commit {}. {}; load {} at the start. {}.\n", run.commit, run.machine, run.load, run.versions);
    for missing in missing {
        let _ = writeln!(page, "**Missing: {missing}.**\n");
    }
    page.push_str(
        "Figures are medians of rounds in which the sides took turns. *n* × means that we are *n* times as good as that \
         side; below 1 we are behind. LightRAG syncs nothing, ever: beside it, ours do more.\n\n",
    );
    let _ = writeln!(page, "![the ratios]({chart})\n\n{}", table(outcomes));
    page.push_str(&latencies(outcomes));
    page.push_str(&notes(outcomes));
    page
}

pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = "| case | commonhold | beside it | goal | |\n|---|---|---|---|---|\n".to_owned();
    for outcome in outcomes {
        let unit = outcome.unit.name();
        let peer = |peer| {
            let peer: &crate::turns::Measured = peer;
            format!("{} {} ({} ×)", peer.name, figure(peer.median), figure(outcome.ratio(peer)))
        };
        let peers: Vec<String> = outcome.peers.iter().map(peer).collect();
        let verdict = match outcome.met() {
            Some(true) => "met",
            Some(false) => "**not met**",
            None if outcome.goals.is_empty() => "",
            None => "not known: a peer is missing",
        };
        let ours = figure(outcome.ours.median);
        let (case, peers, goal) = (&outcome.case, peers.join(", "), outcome.goal());
        let _ = writeln!(table, "| {case} | {ours} {unit} | {peers} | {goal} | {verdict} |");
    }
    table
}

fn latencies(outcomes: &[Outcome]) -> String {
    let mut table = "## Latencies\n\nOf single calls, in all rounds together, in µs.\n\n\
                     | case | side | calls | p50 | p99 | p99.9 | worst |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for outcome in outcomes {
        for side in std::iter::once(&outcome.ours).chain(&outcome.peers) {
            if let Some(Percentiles { calls, p50, p99, p99_9, max }) = side.latencies {
                let [p50, p99, p99_9, max] = [p50, p99, p99_9, max].map(|ns| figure(ns as f64 / 1e3));
                let (case, name) = (&outcome.case, &side.name);
                let _ = writeln!(table, "| {case} | {name} | {calls} | {p50} | {p99} | {p99_9} | {max} |");
            }
        }
    }
    table + "\n"
}

fn notes(outcomes: &[Outcome]) -> String {
    let mut notes = String::from("## Notes\n\n");
    for outcome in outcomes {
        for note in &outcome.notes {
            let _ = writeln!(notes, "- {}: {note}", outcome.case);
        }
        for missed in outcome.missed() {
            let _ = writeln!(notes, "- **{}: {missed}.**", outcome.case);
        }
    }
    notes
}
