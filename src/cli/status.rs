//! `status`: how the daemon is, at a glance; the first line says whether anything must be done.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::Value;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::{self, counted, number, size};
use super::output::{BAD, FAINT, GOOD, NOTE, Out, print_styled};
use super::status_table;
use crate::client::blocking::{Client, ConnectOptions};

/// Options of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Wait so long for a daemon that is just starting, and until what it is loading is loaded.
    #[arg(long, value_name = "T", value_parser = human::parse_span)]
    wait: Option<Duration>,
}

/// Runs the command.
pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let wait = args.wait.map(|wait| (wait, Instant::now().checked_add(wait)));
    // A wait too long to be reckoned with is one without end.
    let time_is_left = || wait.is_some_and(|(_, deadline)| deadline.is_none_or(|deadline| Instant::now() < deadline));
    let client = connect(wait.map(|(wait, _)| wait), &time_is_left, context)?;
    let (mut text, mut status) = ask(&client)?;
    while is_loading(&status) && time_is_left() {
        thread::sleep(PAUSE);
        (text, status) = ask(&client)?;
    }
    if context.json() {
        let mut out = Out::new();
        out.line(&text)?;
        out.finish()?;
    } else {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        print_styled(&render(&status, now_ms))?;
    }
    match wait {
        Some((wait, _)) if is_loading(&status) => Err(Failure::new(
            Exit::TimedOut,
            format_args!("the daemon serves, but after {} it is still loading namespaces", human::span(wait)),
        )),
        _ => Ok(()),
    }
}

/// The status as it was told, and as a value.
fn ask(client: &Client) -> Result<(String, Value), Failure> {
    let text = client.status()?;
    let status = serde_json::from_str(&text).map_err(|error| {
        Failure::new(Exit::Unavailable, format_args!("the daemon's status is not JSON: {error}; it says {text}"))
    })?;
    Ok((text, status))
}

/// Whether namespaces are being loaded, or are still to be at this start.
fn is_loading(status: &Value) -> bool {
    status["preloading"] == true || status["loading"].as_array().is_some_and(|list| !list.is_empty())
}

/// How long to pause between two tries: short beside a daemon's start, long beside a try.
const PAUSE: Duration = Duration::from_millis(20);

/// A daemon that answers is given so long even where less was asked.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Connects, trying again while there is no daemon and time is left.
fn connect(wait: Option<Duration>, time_is_left: &dyn Fn() -> bool, context: &Context) -> Result<Client, Failure> {
    loop {
        let mut options = ConnectOptions::new().cache_bytes(0);
        if let Some(wait) = wait {
            // A daemon that takes the connection and says nothing is waited for no longer than was asked.
            options = options.timeout(Some(wait.max(SHORTEST_WAIT)));
        }
        match context.connect_with(&options) {
            Err(failure) if failure.exit() == Exit::NoDaemon && time_is_left() => thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// The whole picture. What the daemon does not tell, as one of another release may not, is left out.
fn render(status: &Value, now_ms: u64) -> String {
    let mut text = headline(status);
    text.push('\n');
    for (label, words) in facts(status) {
        writeln!(text, "{FAINT}{label:<11}{FAINT:#}{}", human::printable(&words)).expect("a string takes everything");
    }
    for warning in strings(&status["warnings"]) {
        writeln!(text, "{NOTE}warning:{NOTE:#} {}", human::printable(warning)).expect("a string takes everything");
    }
    let table = status_table::lines(&status["namespaces"], now_ms);
    if !table.is_empty() {
        writeln!(text, "\n{}", table.join("\n")).expect("a string takes everything");
    }
    text
}

/// One line: ready, or what is wrong.
fn headline(status: &Value) -> String {
    if let Some(reason) = status["refuses_writes"].as_str() {
        let what = match status["refuses_because"].as_str() {
            Some("full") => "disk full",
            Some("taken") => "lock file gone",
            _ => "disk failure",
        };
        return format!("{BAD}{what}:{BAD:#} writes are refused, reads go on: {}", human::printable(reason));
    }
    match status["totals"]["closed"].as_u64().unwrap_or(0) {
        _ if status["stopping"] == true => format!("{NOTE}stopping{NOTE:#}"),
        _ if status["disk_full"] == true => format!("{BAD}disk full:{BAD:#} writes are refused, reads go on"),
        0 => format!("{GOOD}ready{GOOD:#}"),
        1 => format!("{BAD}damage:{BAD:#} 1 namespace is closed, the others are served"),
        closed => format!("{BAD}damage:{BAD:#} {closed} namespaces are closed, the others are served"),
    }
}

fn facts(status: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (totals, journal) = (&status["totals"], &status["journal"]);
    let daemon = status["pid"].as_u64().map(|pid| {
        let up = status["uptime_s"].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let up = up.map(|up| format!(", up {}", human::span(up)));
        let version = text(&status["version"]).map(|version| format!(", version {version}"));
        format!("pid {pid}{}{}", up.unwrap_or_default(), version.unwrap_or_default())
    });
    let durability = text(&status["durability"]).map(|durability| {
        let format = text(&status["file_format"]).map(|format| format!(", files as {format}"));
        durability + &format.unwrap_or_default()
    });
    let writes = status["seq"]["applied"].as_u64().map(|applied| match status["seq"]["synced"].as_u64() {
        Some(synced) if synced >= applied => format!("seq {applied}, all on the platter"),
        Some(synced) => format!("seq {applied}, on the platter up to {synced}"),
        None => format!("seq {applied}"),
    });
    let memory = totals["records"].as_u64().map(|records| {
        let bytes = totals["bytes"].as_u64().unwrap_or(0);
        let overhead = totals["overhead_bytes"].as_u64().map(|bytes| format!(" + {} of index", size(bytes)));
        let used = used_memory(&status["memory"]).map(|used| format!("; {used}")).unwrap_or_default();
        format!("{}, {}{}{used}", counted(records, "record", "records"), size(bytes), overhead.unwrap_or_default())
    });
    let foreign = status["foreign_files"].as_u64().filter(|files| *files > 0).map(|files| {
        format!("{} of other programs found and kept among the generations", counted(files, "file", "files"))
    });
    let journal = journal["bytes"].as_u64().map(|bytes| {
        let segments = journal["segments"].as_u64().map(|n| format!(" in {}", counted(n, "segment", "segments")));
        size(bytes) + &segments.unwrap_or_default()
    });
    let flushes = totals["rewrites"].as_u64().map(|rewrites| {
        let written = size(totals["bytes_written"].as_u64().unwrap_or(0));
        format!("{} of files since the start, {written}", counted(rewrites, "rewrite", "rewrites"))
    });
    let outcomes = status["outcomes"]["kept"].as_u64().map(|kept| {
        let clients = status["outcomes"]["clients"].as_u64().unwrap_or(0);
        let bytes = status["outcomes"]["bytes"].as_u64().map(|bytes| format!(", {}", size(bytes)));
        format!("{} of {}{}", number(kept), counted(clients, "client", "clients"), bytes.unwrap_or_default())
    });
    let facts = [
        ("store", text(&status["dir"])),
        ("daemon", daemon),
        ("durability", durability),
        ("writes", writes),
        ("memory", memory),
        ("journal", journal),
        ("waiting", waiting(status)),
        ("loading", loading(status)),
        ("flushes", flushes),
        ("outcomes", outcomes),
        ("foreign", foreign),
        ("sessions", sessions(status)),
    ];
    facts.into_iter().filter_map(|(label, words)| words.map(|words| (label, words))).collect()
}

/// Who is connected, and how many of them watch.
fn sessions(status: &Value) -> Option<String> {
    let sessions = number(status["sessions"].as_u64()?);
    let watches = &status["watches"];
    let (count, of) = (watches["count"].as_u64().unwrap_or(0), watches["sessions"].as_u64().unwrap_or(0));
    let watching = format!(", {} of them with {}", number(of), counted(count, "watch", "watches"));
    Some(if count == 0 { sessions } else { sessions + &watching })
}

/// What all of it takes, of what it may.
fn used_memory(memory: &Value) -> Option<String> {
    let used = memory["used_bytes"].as_u64()?;
    Some(match memory["limit_bytes"].as_u64() {
        None => format!("{} in all", size(used)),
        Some(limit) => {
            let percent = (u128::from(used) * 100).checked_div(u128::from(limit)).unwrap_or(100);
            format!("{} in all, {percent} % of the limit of {}", size(used), size(limit))
        }
    })
}

/// What is being loaded and how far that is; nothing where all is loaded that was asked for.
fn loading(status: &Value) -> Option<String> {
    let one = |one: &Value| {
        let (done, total) = (one["done_bytes"].as_u64()?, one["total_bytes"].as_u64()?);
        Some(format!("{} {} of {}", one["namespace"].as_str()?, size(done), size(total)))
    };
    let list: Vec<String> = status["loading"].as_array().into_iter().flatten().filter_map(one).collect();
    is_loading(status).then(|| if list.is_empty() { "beginning".to_owned() } else { list.join(", ") })
}

/// What waits in the journal for a file, how long, and what keeps the journal's oldest segment.
fn waiting(status: &Value) -> Option<String> {
    let (dirty, oldest) = (status["totals"]["dirty"].as_u64()?, &status["journal"]["oldest_waiting"]);
    let pins = strings(&status["journal"]["waiting"]).collect::<Vec<_>>().join(", ");
    if dirty == 0 && pins.is_empty() {
        return Some("nothing".to_owned());
    }
    let mut words = counted(dirty, "namespace", "namespaces");
    if let (Some(name), Some(ms)) = (oldest["namespace"].as_str(), oldest["waiting_ms"].as_u64()) {
        write!(words, ", {name} for {}", human::span(Duration::from_millis(ms))).expect("a string takes everything");
    }
    if !pins.is_empty() {
        write!(words, "; the oldest segment is kept for {pins}").expect("a string takes everything");
    }
    Some(words)
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_first_line_says_what_is_wrong() {
        assert_eq!(plain(&headline(&json!({}))), "ready");
        let closed = json!({"totals": {"closed": 1}});
        assert_eq!(plain(&headline(&closed)), "damage: 1 namespace is closed, the others are served");
        let full = json!({"disk_full": true, "totals": {"closed": 0}});
        assert_eq!(plain(&headline(&full)), "disk full: writes are refused, reads go on");
        let failed = json!({"refuses_writes": "sync failed", "totals": {"closed": 1}});
        assert_eq!(plain(&headline(&failed)), "disk failure: writes are refused, reads go on: sync failed");
        for (because, words) in [("disk", "disk failure"), ("full", "disk full"), ("taken", "lock file gone")] {
            let refused = json!({"refuses_writes": "why", "refuses_because": because});
            assert_eq!(plain(&headline(&refused)), format!("{words}: writes are refused, reads go on: why"));
        }
    }

    #[test]
    fn labels_and_words_are_aligned_and_what_is_not_told_is_left_out() {
        let status = json!({
            "pid": 7, "uptime_s": 65.3, "seq": {"applied": 9, "synced": 8}, "warnings": ["look here"],
            "totals": {"dirty": 2, "rewrites": 41, "bytes_written": 1_468_006, "records": 2, "bytes": 1024},
            "memory": {"used_bytes": 1_610_612_736_u64, "limit_bytes": 2_147_483_648_u64}, "foreign_files": 1,
            "loading": [{"namespace": "c", "done_bytes": 1024, "total_bytes": 4096}],
            "journal": {"waiting": ["a", "t/b"], "oldest_waiting": {"namespace": "t/b", "waiting_ms": 62_000}},
            "sessions": 1_004, "watches": {"count": 2_003, "sessions": 4},
        });
        let expected = "ready
daemon     pid 7, up 1 min 5 s
writes     seq 9, on the platter up to 8
memory     2 records, 1.0 KiB; 1.5 GiB in all, 75 % of the limit of 2.0 GiB
waiting    2 namespaces, t/b for 1 min 2 s; the oldest segment is kept for a, t/b
loading    c 1.0 KiB of 4.0 KiB
flushes    41 rewrites of files since the start, 1.4 MiB
foreign    1 file of other programs found and kept among the generations
sessions   1,004, 4 of them with 2,003 watches
warning: look here
";
        assert_eq!(plain(&render(&status, 0)), expected);
    }
}
