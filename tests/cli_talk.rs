//! What the commands say is true, names what it is about, and says what to do; and it is said where and how it should be: in
//! JSON, in colours, to a reader that leaves, to a shell.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};

use common::{Store, command, ran};

#[test]
fn a_stop_names_the_namespaces_whose_files_it_left_alone() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "torn", "a", "1"]);
    store.ok(&["flush"]);
    store.ok(&["put", "torn", "waits", "2"]);
    daemon.kill();
    let whole = fs::read(store.file("torn")).expect("there");
    fs::write(store.file("torn"), &whole[..5]).expect("torn");

    let daemon = store.serve();
    store.ok(&["put", "open", "a", "1"]);
    let stop = store.run(&["stop"]);
    assert_eq!(stop.code, 0, "{stop:?}");
    assert!(stop.stderr.contains("left alone: torn"), "{stop:?}");
    assert!(daemon.log().contains("left alone"), "{}", daemon.log());
    assert!(daemon.ended().success());
    assert_eq!(fs::read(store.file("torn")).expect("there"), &whole[..5], "the damaged file is as it was");

    fs::write(store.file("torn"), whole).expect("put back");
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "torn", "waits"]), "2\n", "what waited is there with the right file");
    assert_eq!(
        store.ok(&["--json", "stop"]),
        format!("{{\"closed\":[],\"held\":[],\"pid\":{},\"stopped\":true}}\n", daemon.pid())
    );
}

#[test]
fn stops_that_race_all_succeed_and_other_commands_say_that_the_daemon_has_ended() {
    let store = Store::new();
    for round in 0..4 {
        let daemon = store.serve();
        store.ok(&["put", "n", "k", &round.to_string()]);
        let (stops, puts) = std::thread::scope(|scope| {
            let stops: Vec<_> = (0..4).map(|_| scope.spawn(|| store.run(&["stop"]))).collect();
            let put = || {
                let mut put = common::command(store.dir());
                put.args(["put", "n", "other", "1"]).env("COMMONHOLD_TIMEOUT", "2s");
                common::ran(put, b"")
            };
            let puts: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
            let done = |threads: Vec<std::thread::ScopedJoinHandle<'_, common::Ran>>| -> Vec<common::Ran> {
                threads.into_iter().map(|thread| thread.join().expect("it ran")).collect()
            };
            (done(stops), done(puts))
        });
        assert!(daemon.ended().success());
        for stop in &stops {
            // One that begins when all is over finds no daemon, as ever.
            let is_late = stop.code == 3 && stop.stderr.contains("no daemon serves");
            assert!(is_late || stop.code == 0 && stop.stderr.contains("stopped"), "{stop:?}");
        }
        assert!(stops.iter().any(|stop| stop.stderr.contains("all files are up to date")), "{stops:?}");
        for put in puts {
            let words = match put.code {
                0 => "",
                3 => "commonhold serve",
                6 => "once or not at all",
                7 => "stopping",
                _ => panic!("{put:?}"),
            };
            assert!(put.stderr.contains(words) && !put.stderr.contains("handshake"), "{put:?}");
        }
    }
}

#[test]
fn a_stop_that_cannot_flush_says_what_helps_when_there_is_no_daemon_any_more() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    fs::create_dir_all(store.file("n").join("in the way")).expect("made");
    let stop = store.run(&["stop"]);
    stop.refused(7, &["the daemon has ended", "could not flush n", "safe in the journal", "start a daemon"]);
    assert!(!stop.stderr.contains("flush again"), "{stop:?}");
    assert_eq!(daemon.ended().code(), Some(7));
}

#[test]
fn a_lock_file_that_was_removed_is_told_as_that_and_what_to_do() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    fs::remove_file(store.dir().join(".commonhold/owner.lock")).expect("removed");
    let status = common::wait_for("the daemon has seen it", || {
        let status = store.ok(&["status"]);
        (!status.starts_with("ready")).then_some(status)
    });
    let headline = status.lines().next().expect("a line");
    assert!(headline.starts_with("lock file gone: writes are refused, reads go on: "), "{status}");
    for words in ["owner.lock", "writes nothing more", "Stop this daemon"] {
        assert!(headline.contains(words), "{status}");
    }
    let told: serde_json::Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
    assert_eq!((&told["refuses_because"], &told["disk_full"]), (&"taken".into(), &false.into()));
    store.run(&["put", "n", "k", "2"]).refused(7, &["lock file", "Stop this daemon"]);
    assert_eq!(store.ok(&["get", "n", "k"]), "1\n");
    store.run(&["stop"]).refused(7, &["the daemon has ended", "lock file"]);
    assert_eq!(daemon.ended().code(), Some(7));
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "k"]), "1\n");
    daemon.stop();
}

#[test]
fn status_tells_what_is_kept_of_clients_writes() {
    let store = Store::new();
    let _daemon = store.serve();
    for key in ["a", "b", "c"] {
        store.ok(&["put", "n", key, "1"]);
        store.ok(&["put", "--volatile", "v", key, "1"]);
    }
    let told: serde_json::Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
    let kept = |member: &str| told["outcomes"][member].as_u64().expect("a number");
    assert_eq!((kept("clients"), kept("kept")), (6, 6), "{told}");
    assert!(
        kept("bytes") > 6 * 80 && kept("bytes") < told["memory"]["used_bytes"].as_u64().expect("a number"),
        "{told}"
    );
    assert!(store.ok(&["status"]).contains("\noutcomes   6 of 6 clients, "), "{}", store.ok(&["status"]));
}

#[test]
fn names_that_differ_only_in_letter_case_are_told_as_that() {
    let store = Store::new();
    fs::create_dir(store.dir().join("Tenant")).expect("made");
    fs::write(store.dir().join("Tenant/kv_store_n.json"), "{}").expect("written");
    fs::create_dir(store.dir().join("Other")).expect("made");
    for name in ["notes", "Notes"] {
        fs::write(store.file(name), "{\"k\": 1}").expect("written");
    }
    let _daemon = store.serve();
    // Of a workspace: it is not made beside one that has namespaces.
    store.run(&["--workspace", "tenant", "put", "n", "k", "1"]).refused(4, &["letter case", "Tenant/"]);
    store.ok(&["--workspace", "Tenant", "put", "n", "k", "1"]);
    store.ok(&["--workspace", "other", "put", "n", "k", "1"]);
    store.run(&["--workspace", "OTHER", "put", "n", "k", "1"]).refused(4, &["letter case", "other/"]);
    store.ok(&["--workspace", "other", "flush", "n"]);
    assert!(!store.dir().join("tenant").exists() && !store.dir().join("OTHER").exists());
    // Of files: neither is opened, whether anybody has asked for them or not.
    for asked in [false, true] {
        let status = store.ok(&["status"]);
        assert!(status.starts_with("damage: 2 namespaces are closed"), "asked {asked}: {status}");
        assert!(status.contains("letter case") && status.contains("Notes is closed"), "asked {asked}: {status}");
        for name in ["notes", "Notes"] {
            store.run(&["get", name, "k"]).refused(5, &["letter case", "while no daemon runs"]);
        }
    }
}

#[test]
fn a_refused_condition_names_the_record_and_what_is_there() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store
        .run(&["put", "n", "k", "2", "--if-absent"])
        .refused(4, &["n \"k\" has a record, written by seq", "--if-absent"]);
    store.run(&["put", "n", "none", "2", "--if-seq", "7"]).refused(4, &["n \"none\" has no record", "--if-seq"]);
    assert_eq!(store.ok(&["scan", "n"]), "{\"key\":\"k\",\"value\":1}\n");
}

#[test]
fn status_says_that_all_is_on_the_platter_when_it_is() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["commit"]);
    let numbers = |told: &str| {
        let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
        (told["seq"]["applied"].as_u64().expect("number"), told["seq"]["synced"].as_u64().expect("number"))
    };
    let (applied, synced) = numbers(&store.ok(&["--json", "status"]));
    assert_eq!(applied, synced);
    store.ok(&["flush"]);
    let (applied, synced) = numbers(&store.ok(&["--json", "status"]));
    assert_eq!(applied, synced, "what a flush writes into the journal is no write");
    daemon.kill();
    let _daemon = store.serve();
    let (applied, synced) = numbers(&store.ok(&["--json", "status"]));
    assert_eq!(applied, synced, "a start answers only when all it found is on the platter");
}

#[test]
fn a_flush_of_a_volatile_name_is_refused_and_no_trouble_of_the_daemons() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "--volatile", "live", "k", "1"]);
    store.run(&["flush", "live"]).refused(4, &["live", "volatile"]);
    store.ok(&["flush"]);
    let log = daemon.log();
    assert!(!log.contains("flush failed") && !log.contains("ERROR"), "{log}");
}

#[test]
fn one_thing_is_told_as_one() {
    let store = Store::new();
    fs::write(store.file("torn"), "{").expect("written");
    let _daemon = store.serve();
    let put = store.run(&["put", "n", "k", "\"\\ud800\""]);
    assert!(put.stderr.contains("1 lone surrogate was removed"), "{put:?}");
    store.run(&["get", "torn", "k"]).refused(5, &["kv_store_torn.json"]);
    assert!(store.ok(&["status"]).contains("1 namespace is closed: "));
}

#[test]
fn a_lock_file_that_cannot_be_used_refuses_the_start_and_says_where_and_what_to_do() {
    let store = Store::new();
    store.serve().stop();
    let lock = store.dir().join(".commonhold/owner.lock");
    fs::remove_file(&lock).expect("removed");
    std::os::unix::fs::symlink(Path::new("/dev/null"), &lock).expect("linked");
    for command in [&["serve"][..], &["export", "n", "-"]] {
        let ran = store.run(command);
        ran.refused(4, &["owner.lock is a symbolic link to /dev/null", "remove the link"]);
        assert!(!ran.stderr.contains("reads go on"), "nothing was started: {ran:?}");
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let store = Store::new();
    let _daemon = store.serve();
    let status = |no_color: bool| {
        let mut status = command(store.dir());
        status.env("CLICOLOR_FORCE", "1").arg("status");
        if no_color {
            status.env("NO_COLOR", "1");
        }
        ran(status, b"").stdout
    };
    assert!(status(false).contains('\u{1b}'), "{:?}", status(false));
    assert!(!status(true).contains('\u{1b}'), "{:?}", status(true));
}

#[test]
fn json_answers_have_their_documented_members() {
    let store = Store::new();
    let _daemon = store.serve();
    let members = |text: &str| -> Vec<String> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).expect("a JSON object");
        object.keys().cloned().collect()
    };
    assert_eq!(members(&store.ok(&["--json", "put", "n", "k", "1"])), ["found", "new", "seq", "surrogates_removed"]);
    let changes = [
        &["merge", "n", "changed", "{}"] as &[_],
        &["increment", "n", "changed", "f", "1"],
        &["append", "n", "changed", "l", "1"],
    ];
    for change in changes {
        let told = store.ok(&[&["--json"], change].concat());
        assert_eq!(members(&told), ["found", "new", "seq", "surrogates_removed"], "{change:?}");
    }
    store.ok(&["del", "n", "changed"]);
    assert_eq!(members(&store.ok(&["--json", "get", "n", "k"])), ["key", "seq", "value"]);
    assert_eq!(members(&store.ok(&["--json", "keys", "n"])), ["key", "seq"]);
    assert_eq!(members(&store.ok(&["--json", "scan", "n"])), ["key", "seq", "value"]);
    assert_eq!(store.ok(&["--json", "count", "n"]), "{\"records\":1}\n");
    assert_eq!(members(&store.ok(&["--json", "commit"])), ["seq"]);
    assert_eq!(members(&store.ok(&["--json", "flush"])), ["closed", "held", "rewritten", "seq"]);
    assert_eq!(store.ok(&["--json", "flush", "--no-wait"]), "{\"begun\":true}\n");
    assert_eq!(
        members(&store.ok(&["--json", "namespaces"])),
        ["bytes", "closed", "dirty", "file_bytes", "kind", "namespace", "records", "workspace"]
    );
    assert_eq!(members(&store.ok(&["--json", "del", "n", "k"])), ["found", "missing", "seq"]);
    assert_eq!(members(&store.ok(&["--json", "clear", "n"])), ["found", "seq"]);
    let refused = store.run(&["--json", "get", "n", "k"]);
    let error: serde_json::Value = serde_json::from_str(&refused.stderr).expect("JSON");
    assert_eq!(error["error"]["exit"], 1);
    assert_eq!(error["error"]["kind"], "not_found");
    assert!(error["error"]["message"].is_string());
    assert_eq!(members(&store.ok(&["--json", "stop"])), ["closed", "held", "pid", "stopped"]);
}

#[test]
fn a_reader_that_leaves_early_ends_a_command_quietly() {
    let store = Store::new();
    let _daemon = store.serve();
    let lines = (0..20_000).map(|n| format!("{{\"key\":\"{n:0100}\",\"value\":{n}}}\n")).collect::<Vec<_>>().concat();
    assert_eq!(store.run_with(&["import", "n", "-", "--format", "lines"], lines.as_bytes()).code, 0);
    for arguments in [["scan", "n"].as_slice(), &["keys", "n"], &["export", "n", "-"], &["status"], &["--help"]] {
        let mut child = command(store.dir())
            .args(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn version_tells_the_commit_and_completions_name_the_commands() {
    let store = Store::new();
    let version = store.ok(&["--version"]);
    assert!(version.starts_with(&format!("commonhold {} (commit ", env!("CARGO_PKG_VERSION"))), "{version}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(store.ok(&["completions", shell]).contains("namespaces"), "{shell}");
    }
    // What bash offers behind `commonhold na`, and behind an option's beginning.
    let script = "source <(\"$B\" completions bash) && complete -p commonhold >/dev/null || exit 1
        offered() { COMP_WORDS=(commonhold \"$@\"); COMP_CWORD=$#; _commonhold commonhold \"${@: -1}\" x; echo \"${COMPREPLY[@]}\"; }
        offered na; offered flush --re; offered completions ba";
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", script]).env("B", common::BINARY);
    let offered = ran(bash, b"");
    assert_eq!((offered.code, offered.stdout.as_str()), (0, "namespaces\n--rewrite\nbash\n"), "{offered:?}");
}

#[test]
fn an_error_in_json_is_one_line_whatever_went_wrong() {
    let store = Store::new();
    let _daemon = store.serve();
    let cases: [(&[&str], &str); 6] = [
        (&["put", "n", "k", "{\"a\":1\n2}"], "line 2, column 1"),
        (&["append", "n", "k", "f", "[1 2"], "line 1, column 4"),
        (&["gett", "n", "k"], "unrecognized subcommand 'gett'"),
        (&["get"], "<NS> <KEY>"),
        (&["increment", "n", "k", "f", "x"], "a number was expected"),
        (&[], "requires a subcommand"),
    ];
    for (arguments, words) in cases {
        let ran = store.run(&[&["--json"], arguments].concat());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (2, "", 1), "{ran:?}");
        let told: serde_json::Value = serde_json::from_str(&ran.stderr).expect("JSON");
        let message = told["error"]["message"].as_str().expect("text");
        assert!(message.contains(words) && !message.contains('\n'), "{words:?} in {message:?}");
        assert_eq!((&told["error"]["exit"], &told["error"]["kind"]), (&2.into(), &"usage".into()));
    }
    let plain = store.run(&["put", "n", "k", "--", "--json"]);
    assert!(plain.stderr.starts_with("commonhold: "), "{plain:?}");
}

/// Starts `watch` with these arguments, and gives what it prints, line by line.
fn watch(store: &Store, arguments: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = command(store.dir());
    command.arg("watch").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let printed = BufReader::new(child.stdout.take().expect("piped"));
    (child, printed.lines().map(|line| line.expect("UTF-8")))
}

#[test]
fn a_watch_that_finds_no_daemon_any_more_ends_with_3() {
    let store = Store::new();
    let daemon = store.serve();
    let mut watch = command(store.dir());
    watch.args(["watch", "a"]).env("COMMONHOLD_TIMEOUT", "300ms").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut watch = watch.spawn().expect("the binary runs");
    let mut said = BufReader::new(watch.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let begins = said.next().expect("it begins");
    assert!(begins.starts_with("watching a after "), "{begins}");
    daemon.kill();
    assert_eq!(watch.wait().expect("a child of ours").code(), Some(3));
    let why = said.next().expect("it says why");
    assert!(why.contains("commonhold serve"), "{why}");
}

/// The write that a command says it has done.
fn seq(answer: &str) -> u64 {
    let told: serde_json::Value = serde_json::from_str(answer).expect("JSON");
    told["seq"].as_u64().expect("a number")
}

#[test]
fn a_watch_tells_each_write_on_a_line_and_says_from_where_it_tells() {
    let store = Store::new();
    let _daemon = store.serve();
    let puts: Vec<u64> = (0..5).map(|n| seq(&store.ok(&["--json", "put", "a", &format!("k{n}"), "1.10"]))).collect();
    let [first, second, third, ..] = puts[..] else { panic!("{puts:?}") };
    let ran = store.run(&["watch", "a", "--from", &first.to_string(), "--limit", "2"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Who goes on from the number that is told misses nothing, though all five have come.
    assert_eq!(ran.stderr, format!("watching a after {first}\n"));
    let line = |seq, key: &str| {
        format!("{{\"seq\":{seq},\"changes\":[{{\"op\":\"put\",\"key\":\"{key}\",\"value\":1.10}}]}}\n")
    };
    assert_eq!(ran.stdout, line(second, "k1") + &line(third, "k2"));

    let deleted = seq(&store.ok(&["--json", "del", "a", "k0", "k1"]));
    let cleared = seq(&store.ok(&["--json", "clear", "a"]));
    let other = seq(&store.ok(&["--json", "put", "a", "x", "null"]));
    let dropped = seq(&store.ok(&["--json", "drop", "a"]));
    // What concerns all keys is told whatever the prefix.
    let from = third.to_string();
    let told = store.run(&["--quiet", "watch", "a", "--from", &from, "--prefix", "k1", "--limit", "3"]);
    let only = |seq, change: &str| format!("{{\"seq\":{seq},\"changes\":[{change}]}}\n");
    let expected = only(deleted, "{\"op\":\"delete\",\"key\":\"k1\"}")
        + &only(cleared, "{\"op\":\"clear\"}")
        + &only(dropped, "{\"op\":\"drop\"}");
    assert_eq!((told.stdout, told.stderr, told.code), (expected, String::new(), 0));
    assert!(other > cleared && dropped > other);

    store.run(&["watch", "a", "--from", &(dropped + 1_000).to_string()]).refused(4, &[&(dropped + 1_000).to_string()]);
    store.run(&["watch", "never/../was"]).refused(2, &["never/../was"]);
}

#[test]
fn a_watch_goes_on_with_the_next_daemon_and_says_what_cannot_be_told() {
    let store = Store::new();
    let daemon = store.serve();
    let persistent = seq(&store.ok(&["--json", "put", "a", "before", "1"]));
    let volatile = seq(&store.ok(&["--json", "put", "--volatile", "live", "k", "1"]));
    let (mut of_file, mut lines) = watch(&store, &["a", "--from", &(persistent - 1).to_string(), "--limit", "2"]);
    let (mut of_memory, mut live) = watch(&store, &["--volatile", "live"]);
    let mut said = BufReader::new(of_memory.stderr.take().expect("piped"));
    let mut begins_after = String::new();
    said.read_line(&mut begins_after).expect("UTF-8");
    assert_eq!(begins_after, format!("watching live after {volatile}\n"));
    let volatile = seq(&store.ok(&["--json", "put", "--volatile", "live", "before", "1"]));
    let begins =
        |seq: u64| format!("{{\"seq\":{seq},\"changes\":[{{\"op\":\"put\",\"key\":\"before\",\"value\":1}}]}}");
    assert_eq!(lines.next(), Some(begins(persistent)));
    assert_eq!(live.next(), Some(begins(volatile)));
    daemon.kill();
    let _daemon = store.serve();
    let after = seq(&store.ok(&["--json", "put", "a", "after", "2"]));
    let expected = format!("{{\"seq\":{after},\"changes\":[{{\"op\":\"put\",\"key\":\"after\",\"value\":2}}]}}");
    assert_eq!((lines.next(), lines.next()), (Some(expected), None));
    assert!(of_file.wait().expect("a child of ours").success());
    assert_eq!(live.next(), None);
    assert_eq!(of_memory.wait().expect("a child of ours").code(), Some(4));
    let mut why = String::new();
    said.read_to_string(&mut why).expect("UTF-8");
    assert!(why.contains("those before it are gone"), "{why}");
    store
        .run(&["watch", "--volatile", "live", "--from", &volatile.to_string()])
        .refused(4, &["those before it are gone"]);
}
