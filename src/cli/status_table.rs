//! The table of `status`: what each namespace holds, what keeping it has cost since the daemon started, and what of it
//! its file still lacks.

use std::time::Duration;

use serde_json::Value;

use super::human::{self, Side, Table, number, printable, size};
use super::output::{BAD, FAINT, NOTE};

/// The lines, head first; none for an empty list. What the daemon does not tell shows as `-`. `now_ms` is the time in
/// milliseconds since 1970.
pub(super) fn lines(list: &Value, now_ms: u64) -> Vec<String> {
    let list: Vec<&Value> = list.as_array().into_iter().flatten().collect();
    if list.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        ("NAMESPACE", Side::Left),
        ("RECORDS", Side::Right),
        ("BYTES", Side::Right),
        ("MEMORY", Side::Right),
        ("FILE", Side::Right),
        ("LOADS", Side::Right),
        ("REWRITES", Side::Right),
        ("WRITTEN", Side::Right),
        ("LAST FLUSH", Side::Left),
        ("STATE", Side::Left),
    ]);
    for one in &list {
        let is_loaded = one["records"].is_u64();
        let told = |member: &str, show: fn(u64) -> String| {
            one[member].as_u64().filter(|_| is_loaded).map_or_else(|| "-".to_owned(), show)
        };
        let memory = one["overhead_bytes"].as_u64().zip(one["bytes"].as_u64()).filter(|_| is_loaded);
        table.row(vec![
            name(one),
            told("records", number),
            told("bytes", size),
            memory.map_or_else(|| "-".to_owned(), |(overhead, bytes)| size(overhead + bytes)),
            one["file_bytes"].as_u64().map_or_else(|| "-".to_owned(), size),
            told("loads", number),
            told("rewrites", number),
            told("bytes_written", size),
            last_flush(one, now_ms),
            state(one),
        ]);
    }
    let mut lines = table.lines();
    lines[0] = format!("{FAINT}{}{FAINT:#}", lines[0]);
    for (line, one) in lines[1..].iter_mut().zip(&list) {
        // The state is the last cell of its line, so that colouring it moves nothing.
        let style = if one["reason"].is_string() { BAD } else { NOTE };
        let stands_out = one["reason"].is_string() || one["dirty"] == true;
        if let Some(head) = line.strip_suffix(&state(one)).filter(|_| stands_out) {
            *line = format!("{head}{style}{}{style:#}", state(one));
        }
    }
    for one in &list {
        if let Some(reason) = one["reason"].as_str() {
            lines.push(format!("{BAD}{} is closed:{BAD:#} {reason}", name(one)));
        }
        if let Some(reason) = one["failed_flush"]["reason"].as_str() {
            let ago = ago(&one["failed_flush"], now_ms).unwrap_or_default();
            lines.push(format!("{BAD}{}: the last flush failed{ago}:{BAD:#} {}", name(one), printable(reason)));
        }
    }
    lines
}

fn name(one: &Value) -> String {
    let text = |member: &str| one[member].as_str().unwrap_or_default();
    let (workspace, namespace) = (text("workspace"), text("namespace"));
    if workspace.is_empty() { namespace.to_owned() } else { format!("{}/{namespace}", printable(workspace)) }
}

/// As `2 min 3 s ago, took 40 ms`.
fn last_flush(one: &Value, now_ms: u64) -> String {
    let flush = &one["last_flush"];
    let Some(ago) = ago(flush, now_ms) else { return "-".to_owned() };
    let took = flush["took_ms"].as_f64().and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
    let took = took.map(|took| format!(", took {}", human::span(took)));
    format!("{}{}", ago.trim_start(), took.unwrap_or_default())
}

/// As ` 2 min 3 s ago`.
fn ago(flush: &Value, now_ms: u64) -> Option<String> {
    let ended = flush["unix_ms"].as_u64()?;
    Some(format!(" {} ago", human::span(Duration::from_millis(now_ms.saturating_sub(ended)))))
}

fn state(one: &Value) -> String {
    let waiting = one["waiting_ms"].as_u64().map(|ms| human::span(Duration::from_millis(ms)));
    match (one["state"].as_str(), one["dirty"] == true, waiting) {
        _ if one["reason"].is_string() => "closed".to_owned(),
        _ if one["kind"] == "volatile" => "volatile".to_owned(),
        (Some("unloaded"), false, _) => "not loaded".to_owned(),
        (_, true, Some(waiting)) => format!("dirty for {waiting}"),
        (_, true, None) => "dirty".to_owned(),
        (Some("loaded") | None, false, _) => "clean".to_owned(),
        (Some(other), false, _) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_number_has_its_column_and_wide_names_move_nothing() {
        let list = json!([
            {"workspace": "", "namespace": "a", "state": "loaded", "records": 1234, "bytes": 4096,
             "overhead_bytes": 1024, "file_bytes": 5000, "dirty": true, "waiting_ms": 12_000, "loads": 1,
             "rewrites": 40, "bytes_written": 1_468_006, "last_flush": {"unix_ms": 1_000, "took_ms": 40.2}},
            {"workspace": "租户\u{1b}", "namespace": "b", "state": "unloaded", "records": null, "bytes": 0,
             "overhead_bytes": 0, "file_bytes": 7, "dirty": false},
            {"workspace": "", "namespace": "live", "kind": "volatile", "state": "loaded", "records": 2, "bytes": 9,
             "overhead_bytes": 100, "file_bytes": null, "dirty": false, "loads": 0, "rewrites": 0, "bytes_written": 0},
            {"workspace": "t", "namespace": "c", "state": "closed", "records": null, "reason": "torn"},
            {"workspace": "", "namespace": "d", "state": "loaded", "records": 1, "bytes": 1, "overhead_bytes": 9,
             "file_bytes": null, "dirty": true, "waiting_ms": 1_000, "loads": 1, "rewrites": 0, "bytes_written": 0,
             "failed_flush": {"unix_ms": 75_000, "reason": "the disk is full"}},
        ]);
        let lines = lines(&list, 76_000).join("\n");
        let expected = "\
NAMESPACE     RECORDS    BYTES   MEMORY     FILE  LOADS  REWRITES  WRITTEN  LAST FLUSH                  STATE
a               1,234  4.0 KiB  5.0 KiB  4.9 KiB      1        40  1.4 MiB  1 min 15 s ago, took 40 ms  dirty for 12 s
租户\\u{1b}/b        -        -        -      7 B      -         -        -  -                           not loaded
live                2      9 B    109 B        -      0         0      0 B  -                           volatile
t/c                 -        -        -        -      -         -        -  -                           closed
d                   1      1 B     10 B        -      1         0      0 B  -                           dirty for 1 s
t/c is closed: torn
d: the last flush failed 1 s ago: the disk is full";
        assert_eq!(anstream::adapter::strip_str(&lines).to_string(), expected);
    }

    #[test]
    fn no_namespaces_make_no_table() {
        assert_eq!(lines(&json!([]), 0), Vec::<String>::new());
        assert_eq!(lines(&Value::Null, 0), Vec::<String>::new());
    }
}
