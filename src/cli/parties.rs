//! `locks` and `slots`: who holds what, and who waits for it. A row for each holder and each waiter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::context::Context;
use super::failure::Failure;
use super::human::{Side, Table, printable, span};
use super::output::{FAINT, Out, print_styled};
use crate::proto::{LockInfo, Party, SlotInfo};

/// Longest name that is shown to people in full, in characters.
const SHOWN_NAME_CHARS: usize = 60;

/// Runs `locks`.
pub(super) fn locks(context: &Context) -> Result<(), Failure> {
    let list = context.connect()?.locks()?;
    if context.json() {
        return print_lines(list.iter().map(lock_as_json));
    }
    if list.is_empty() {
        context.talk("nothing is locked");
    }
    print_table(&locks_table(&list, now_ms()))
}

/// Runs `slots`.
pub(super) fn slots(context: &Context) -> Result<(), Failure> {
    let list = context.connect()?.slot_groups()?;
    if context.json() {
        return print_lines(list.iter().map(group_as_json));
    }
    if list.is_empty() {
        context.talk("no group of slots is used");
    }
    print_table(&slots_table(&list, now_ms()))
}

/// Prints a list as JSON lines.
pub(super) fn print_lines(lines: impl Iterator<Item = Value>) -> Result<(), Failure> {
    let mut out = Out::new();
    for line in lines {
        out.line(&line.to_string())?;
    }
    out.finish()
}

/// Prints a table unless it has no rows.
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    let mut lines = table.lines();
    if lines.len() < 2 {
        return Ok(());
    }
    lines[0] = format!("{FAINT}{}{FAINT:#}", lines[0]);
    print_styled(&(lines.join("\n") + "\n"))
}

/// A name as people see it.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN_NAME_CHARS).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    printable(&shown)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn lock_as_json(lock: &LockInfo) -> Value {
    let party = |party: &Party| {
        let mut told = party_as_json(party);
        told["owner"] = party.owner.into();
        told["shared"] = party.shared.into();
        if party.token > 0 {
            told["token"] = party.token.into();
        }
        told
    };
    let all = |parties: &[Party]| parties.iter().map(party).collect::<Vec<_>>();
    json!({"key": lock.key, "holders": all(&lock.holders), "waiters": all(&lock.waiters)})
}

fn group_as_json(group: &SlotInfo) -> Value {
    let party = |party: &Party| {
        let mut told = party_as_json(party);
        told["slots"] = party.slots.into();
        told
    };
    let all = |parties: &[Party]| parties.iter().map(party).collect::<Vec<_>>();
    json!({
        "group": group.group,
        "limit": group.limit,
        "taken": group.taken,
        "holders": all(&group.holders),
        "waiters": all(&group.waiters),
    })
}

fn party_as_json(party: &Party) -> Value {
    json!({
        "session": party.session,
        "pid": party.pid,
        "command": party.command,
        "since_unix_ms": party.since_unix_ms,
    })
}

fn locks_table(list: &[LockInfo], now_ms: u64) -> Table {
    let mut table = table(("KEY", "HOW"), ("TOKEN", Side::Right));
    for lock in list {
        for party in &lock.holders {
            let how = if party.shared { "shares it" } else { "has it" };
            table.row(row(&lock.key, how, party.token.to_string(), party, now_ms));
        }
        for party in &lock.waiters {
            let how = if party.shared { "waits to share" } else { "waits" };
            table.row(row(&lock.key, how, "-".to_owned(), party, now_ms));
        }
    }
    table
}

fn slots_table(list: &[SlotInfo], now_ms: u64) -> Table {
    let mut table = table(("GROUP", "HOW"), ("SLOTS", Side::Left));
    for group in list {
        let of = |slots: u32| format!("{slots} of {}", group.limit);
        if group.holders.is_empty() && group.waiters.is_empty() {
            let nobody = ["-"; 4].map(str::to_owned);
            let [session, pid, time, command] = nobody;
            table.row(vec![shown(&group.group), "free".to_owned(), of(0), session, pid, time, command]);
        }
        let parties = group.holders.iter().map(|party| ("has", party));
        for (how, party) in parties.chain(group.waiters.iter().map(|party| ("waits for", party))) {
            table.row(row(&group.group, how, of(party.slots), party, now_ms));
        }
    }
    table
}

fn table((name, how): (&'static str, &'static str), (what, side): (&'static str, Side)) -> Table {
    Table::new(&[
        (name, Side::Left),
        (how, Side::Left),
        (what, side),
        ("SESSION", Side::Right),
        ("PID", Side::Right),
        ("FOR", Side::Left),
        ("COMMAND", Side::Left),
    ])
}

fn row(name: &str, how: &str, what: String, party: &Party, now_ms: u64) -> Vec<String> {
    vec![
        shown(name),
        how.to_owned(),
        what,
        party.session.to_string(),
        party.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        span(Duration::from_millis(now_ms.saturating_sub(party.since_unix_ms))),
        printable(&party.command),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(session: u64, token: u64, slots: u32) -> Party {
        let (pid, command) = ((session < 9).then_some(4_710 + session as u32), "gunicorn\u{1b}[2J".to_owned());
        Party { session, pid, command, owner: 2, token, shared: false, slots, since_unix_ms: 1_000 }
    }

    #[test]
    fn each_holder_and_each_waiter_has_a_row_and_a_name_moves_no_cursor() {
        let (holders, waiters) = (vec![party(1, 77, 1)], vec![party(2, 0, 1), party(12, 0, 1)]);
        let lock = LockInfo { key: "doc\n1".to_owned(), holders, waiters };
        let expected = "\
KEY     HOW     TOKEN  SESSION   PID  FOR        COMMAND
doc\\n1  has it     77        1  4711  1 min 5 s  gunicorn\\u{1b}[2J
doc\\n1  waits       -        2  4712  1 min 5 s  gunicorn\\u{1b}[2J
doc\\n1  waits       -       12     -  1 min 5 s  gunicorn\\u{1b}[2J";
        assert_eq!(locks_table(&[lock], 66_000).lines().join("\n"), expected);
        let group =
            SlotInfo { group: "llm".to_owned(), limit: 4, taken: 3, holders: vec![party(1, 5, 3)], waiters: vec![] };
        let idle = SlotInfo { group: "x".repeat(70), limit: 1, taken: 0, holders: vec![], waiters: vec![] };
        let lines = slots_table(&[group, idle], 66_000).lines();
        assert!(lines[1].starts_with("llm "), "{lines:?}");
        assert!(lines[1].contains("has   3 of 4        1  4711"), "{lines:?}");
        assert!(lines[2].starts_with(&format!("{}…  free  0 of 1", "x".repeat(60))), "{lines:?}");
    }
}
