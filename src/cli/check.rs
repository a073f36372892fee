//! `check [--deep]`: what is wrong with a store that no daemon owns, what follows from it, and which command settles it.
//! It changes nothing.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::{counted, printable};
use super::output::{BAD, FAINT, GOOD, NOTE, print_json, print_styled};
use crate::engine::{self, Finding, Report, Severity, Surroundings};

/// Options of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Read every namespace file and every kept generation as well, and replay the journal.
    #[arg(long)]
    deep: bool,
}

/// Runs the command.
pub(super) fn run(args: &CheckArgs, context: &Context) -> Result<(), Failure> {
    context.check_directory()?;
    let report = engine::check(context.store(), args.deep, Surroundings::real()?)?;
    if context.json() {
        print_json(&as_json(&report, args.deep))?;
    } else {
        print_styled(&told(&report, context.quiet()))?;
    }
    let errors = report.count(Severity::Error) as u64;
    if errors > 0 {
        let found = counted(errors, "error", "errors");
        return Err(Failure::new(Exit::Damage, format_args!("{} needs repair: {found}", context.store().display())));
    }
    Ok(())
}

fn as_json(report: &Report, deep: bool) -> Value {
    json!({
        "deep": deep,
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "notes": report.count(Severity::Note),
        "namespaces": report.namespaces,
        "records": report.records,
        "generations": report.generations,
        "findings": report.findings.iter().map(finding_as_json).collect::<Vec<_>>(),
    })
}

fn finding_as_json(finding: &Finding) -> Value {
    let remedies: Vec<Value> =
        finding.remedies.iter().map(|remedy| json!({"what": remedy.what, "command": remedy.command})).collect();
    json!({
        "severity": word(finding.severity),
        "kind": finding.kind,
        "workspace": finding.place.as_ref().map(|place| place.workspace.to_string()),
        "namespace": finding.place.as_ref().map(|place| place.namespace.to_string()),
        "file": finding.file.display().to_string(),
        "offset": finding.offset,
        "line": finding.line.map(|(line, _)| line),
        "column": finding.line.map(|(_, column)| column),
        "what": finding.what,
        "consequence": finding.consequence,
        "remedies": remedies,
    })
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn told(report: &Report, quiet: bool) -> String {
    let mut text = String::new();
    for finding in report.findings.iter().filter(|finding| !quiet || finding.severity > Severity::Note) {
        tell(&mut text, finding);
    }
    let is_clean = report.count(Severity::Error) + report.count(Severity::Warning) == 0;
    let style = if is_clean { GOOD } else { FAINT };
    let looked = counted(report.namespaces, "namespace", "namespaces");
    let read = report.records.map_or_else(String::new, |records| {
        let generations = report.generations.unwrap_or(0);
        format!(", {}, {}", counted(records, "record", "records"), counted(generations, "generation", "generations"))
    });
    let verdict = if is_clean { "no damage" } else { "see above" };
    let _ = writeln!(
        text,
        "{style}{verdict}{style:#}: {}, {}, {} in {looked}{read}",
        counted(report.count(Severity::Error) as u64, "error", "errors"),
        counted(report.count(Severity::Warning) as u64, "warning", "warnings"),
        counted(report.count(Severity::Note) as u64, "note", "notes"),
    );
    text
}

fn tell(text: &mut String, finding: &Finding) {
    let style = match finding.severity {
        Severity::Note => FAINT,
        Severity::Warning => NOTE,
        Severity::Error => BAD,
    };
    let mut place = String::new();
    if let Some((line, column)) = finding.line {
        let _ = write!(place, ", line {line}, column {column}");
    }
    if let Some(offset) = finding.offset {
        let _ = write!(place, ", byte {offset}");
    }
    let namespace = finding
        .place
        .as_ref()
        .map_or_else(String::new, |place| format!(" namespace {}:", printable(&place.to_string())));
    let file = printable(&finding.file.display().to_string());
    let _ = writeln!(text, "{style}{}{style:#}:{namespace} {file}{place}", word(finding.severity));
    let _ = writeln!(text, "  {}", printable(&finding.what));
    if !finding.consequence.is_empty() {
        let _ = writeln!(text, "  so: {}", printable(&finding.consequence));
    }
    for remedy in &finding.remedies {
        let _ = writeln!(text, "  to do: {}", printable(&remedy.what));
        if let Some(command) = &remedy.command {
            let _ = writeln!(text, "    {}", printable(command));
        }
    }
}
