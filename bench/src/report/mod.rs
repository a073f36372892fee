//! What a run leaves: the figures as JSON, a table and a chart that people can read.

pub mod chart;
pub mod markdown;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::machine::Run;
use crate::outcome::Outcome;

/// Writes `<date>.json`, `.md` and `.svg`, or with the names of cases `<date>-<names>`, so that a run of one case does not
/// take the place of a whole one. A second run of the same on one day does.
pub fn write(
    directory: &Path,
    run: &Run,
    cases: &[String],
    missing: &[String],
    outcomes: &[Outcome],
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let about = run.to_json();
    let list: Vec<Value> = outcomes.iter().map(|outcome| outcome.to_json(&about)).collect();
    let name = match cases {
        [] => run.date.clone(),
        [one] => format!("{}-{one}", run.date),
        [first, .., last] => format!("{}-{first}-to-{last}", run.date),
    };
    let texts = [
        (format!("{name}.json"), serde_json::to_string_pretty(&list)? + "\n"),
        (format!("{name}.md"), markdown::page(run, missing, outcomes, &format!("{name}.svg"))),
        (format!("{name}.svg"), chart::draw(run, outcomes)),
    ];
    let mut written = Vec::new();
    for (name, text) in texts {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

/// On standard output, after the table: nobody should have to look for it.
pub fn say_what_was_missed(outcomes: &[Outcome]) {
    let judged = outcomes.iter().filter(|outcome| outcome.met().is_some()).count();
    let missed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.met() == Some(false)).collect();
    println!("{} of {judged} lines met their goals", judged - missed.len());
    for outcome in missed {
        println!("NOT MET: {}: {}", outcome.case, outcome.missed().join("; "));
    }
}
