//! Every command of the real binary against a real daemon: what it prints, where, and with which exit code.

mod common;

use common::{Store, command, ran};

#[test]
fn put_get_and_del_speak_on_the_right_streams() {
    let store = Store::new();
    let _daemon = store.serve();
    let put = store.run(&["put", "n", "a", "{ \"x\": 1.10 }"]);
    assert_eq!((put.code, put.stdout.as_str()), (0, ""), "{put:?}");
    assert!(put.stderr.contains("\"a\": new, seq "), "{put:?}");
    assert_eq!(store.ok(&["get", "n", "a"]), "{\"x\":1.10}\n");
    let quiet = store.run(&["--quiet", "put", "n", "a", "-5"]);
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (0, "", ""), "{quiet:?}");
    assert_eq!(store.ok(&["get", "n", "a"]), "-5\n");
    let piped = store.run_with(&["put", "n", "", "-"], b" [NaN, -Infinity, 12345678901234567890123]\n");
    assert_eq!(piped.code, 0, "{piped:?}");
    assert_eq!(store.ok(&["get", "n", ""]), "[NaN,-Infinity,12345678901234567890123]\n");
    assert_eq!(store.ok(&["get", "n", "", "a"]), "[NaN,-Infinity,12345678901234567890123]\n-5\n");
    assert_eq!(store.run(&["del", "n", "a", ""]).code, 0);
    assert_eq!(store.ok(&["count", "n"]), "0\n");
}

#[test]
fn get_names_the_missing_keys_and_prints_the_others() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "b", "2"]);
    let ran = store.run(&["get", "n", "a", "b", "c"]);
    assert_eq!(ran.stdout, "2\n");
    ran.refused(1, &["not found in n: \"a\", \"c\""]);
    store.run(&["del", "n", "b", "x"]).refused(1, &["1 key of 2"]);
    assert_eq!(store.ok(&["count", "n"]), "0\n");
}

#[test]
fn put_keeps_its_conditions() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "k", "1", "--if-absent"]);
    store.run(&["put", "n", "k", "2", "--if-absent"]).refused(4, &["refused the write"]);
    let got: serde_json::Value = serde_json::from_str(&store.ok(&["--json", "get", "n", "k"])).expect("JSON");
    let seq = got["seq"].as_u64().expect("a number");
    store.run(&["put", "n", "k", "2", "--if-seq", &(seq + 1).to_string()]).refused(4, &[&seq.to_string()]);
    store.ok(&["put", "n", "k", "3", "--if-seq", &seq.to_string(), "--durability", "synced"]);
    assert_eq!(store.ok(&["get", "n", "k"]), "3\n");
}

#[test]
fn keys_and_scan_keep_insertion_order_prefix_and_limit() {
    let store = Store::new();
    let _daemon = store.serve();
    for key in ["b1", "a1", "b2", "b3"] {
        store.ok(&["put", "n", key, "0"]);
    }
    store.ok(&["put", "n", "b1", "\"again\""]);
    assert_eq!(store.ok(&["keys", "n"]), "b1\na1\nb2\nb3\n");
    assert_eq!(store.ok(&["keys", "n", "--prefix", "b", "--limit", "2"]), "b1\nb2\n");
    assert_eq!(
        store.ok(&["scan", "n", "--limit", "2"]),
        "{\"key\":\"b1\",\"value\":\"again\"}\n{\"key\":\"a1\",\"value\":0}\n"
    );
    assert_eq!(store.ok(&["scan", "n", "--prefix", "a"]), "{\"key\":\"a1\",\"value\":0}\n");
    assert_eq!(store.ok(&["scan", "n", "--limit", "0"]), "");
    assert_eq!(store.ok(&["keys", "n", "--prefix", "zzz"]), "");
}

#[test]
fn bench_puts_its_load_on_a_namespace_of_its_own_and_removes_it() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    let small = ["--connections", "3", "--in-flight", "4", "--keys", "50", "--value-size", "100"];
    let writing = ["--json", "bench", "--requests", "600", "--reads", "25", "--durability", "synced"];
    let told = store.ok(&[&writing[..], &small].concat());
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let requests = |kind: &str| told[kind]["requests"].as_u64().expect("a number");
    assert_eq!(requests("get") + requests("put"), 600, "{told}");
    assert!(requests("get") > 50 && requests("get") < 300, "{told}");
    assert_eq!((&told["durability"], &told["value_bytes"]), (&"synced".into(), &100.into()), "{told}");
    for kind in ["get", "put"] {
        let time = |name: &str| told[kind][name].as_f64().expect("a number");
        assert!(
            0.0 < time("p50_us") && time("p50_us") <= time("p99_us") && time("p99_us") <= time("p99_9_us"),
            "{told}"
        );
        assert!(time("p99_9_us") <= time("max_us") && told[kind]["per_second"].as_u64() > Some(0), "{told}");
    }
    let table = store.ok(&[&["bench", "--time", "50ms", "--reads", "0"][..], &small].concat());
    assert!(table.contains("p99.9") && table.contains("\nput ") && !table.contains("\nget "), "{table}");
    assert_eq!(store.ok(&["namespaces"]).matches("bench").count(), 0);
    assert_eq!(store.ok(&["get", "n", "a"]), "1\n");
}

#[test]
fn bench_touches_no_namespace_that_exists() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "mine", "a", "1"]);
    store.ok(&["flush"]);
    let refused = store.run(&["bench", "--namespace", "mine", "--requests", "10"]);
    refused.refused(4, &["there is a namespace mine already", "--namespace", "commonhold drop mine"]);
    assert_eq!(store.ok(&["scan", "mine"]), "{\"key\":\"a\",\"value\":1}\n");
    store.run(&["bench", "--value-size", "1"]).refused(2, &["2 is the least"]);
    store.run(&["bench", "--value-size", "1G"]).refused(2, &["the most that a value may have"]);
    store.run(&["bench", "--time", "1s", "--requests", "5"]).refused(2, &["--requests"]);
}

#[test]
fn count_and_clear_agree() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["put", "n", "b", "1"]);
    assert_eq!(store.ok(&["count", "n"]), "2\n");
    let clear = store.run(&["clear", "n"]);
    assert!(clear.code == 0 && clear.stderr.contains("2 records deleted"), "{clear:?}");
    assert_eq!(store.ok(&["count", "n"]), "0\n");
}

#[test]
fn drop_removes_the_file_and_says_where_the_last_one_is_kept() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["flush"]);
    store.ok(&["put", "n", "late", "2"]);
    let dropped = store.run(&["drop", "n"]);
    assert!(dropped.code == 0 && dropped.stderr.contains("n: dropped with 2 records, seq "), "{dropped:?}");
    assert!(dropped.stderr.contains("what had been written since that file's flush is gone"), "{dropped:?}");
    assert!(!store.file("n").exists());
    let kept = dropped.stderr.split("kept as ").nth(1).and_then(|rest| rest.split(';').next()).expect("a path");
    assert_eq!(std::fs::read_to_string(kept).expect("it is there"), "{\n\"a\":1\n}\n");
    assert_eq!(store.ok(&["count", "n"]), "0\n");
    store.run(&["drop", "n"]).refused(1, &["there is no namespace n; nothing was dropped"]);

    store.ok(&["put", "n", "new", "3"]);
    daemon.kill();
    let daemon = store.serve_with(&["--keep", "0"]);
    assert_eq!(store.ok(&["keys", "n"]), "new\n", "what was written after a drop is there, what was before is not");
    store.ok(&["flush"]);
    store.ok(&["put", "never_flushed", "k", "1"]);
    let dropped = store.run(&["drop", "never_flushed"]);
    assert!(dropped.code == 0 && !dropped.stderr.contains("kept"), "{dropped:?}");
    // Nothing is kept of this one either; what lies among the generations is an older file.
    assert!(std::path::Path::new(kept).exists());
    let dropped = store.run(&["drop", "n"]);
    assert!(dropped.code == 0 && !dropped.stderr.contains("kept as"), "{dropped:?}");
    daemon.stop();
}

#[test]
fn a_volatile_namespace_is_of_its_own_kind_and_gone_with_the_daemon() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "live", "k", "1", "--volatile"]);
    store.ok(&["merge", "live", "status", "{\"busy\": true}", "--volatile"]);
    store.ok(&["increment", "live", "status", "jobs", "2", "--volatile"]);
    store.ok(&["append", "live", "status", "log", "\"begun\"", "--volatile"]);
    let status = "{\"busy\":true,\"jobs\":2,\"log\":[\"begun\"]}";
    assert_eq!(store.ok(&["get", "live", "status", "--volatile"]), format!("{status}\n"));
    assert_eq!(store.ok(&["keys", "live", "--volatile"]), "k\nstatus\n");
    assert_eq!(store.ok(&["scan", "live", "--volatile", "--prefix", "k"]), "{\"key\":\"k\",\"value\":1}\n");
    assert_eq!(store.ok(&["count", "live", "--volatile"]), "2\n");
    assert_eq!(store.ok(&["export", "live", "-", "--volatile"]), format!("{{\n\"k\":1,\n\"status\":{status}\n}}\n"));
    for listing in [store.ok(&["namespaces"]), store.ok(&["status"])] {
        assert!(listing.lines().any(|line| line.starts_with("live") && line.ends_with("volatile")), "{listing}");
    }

    store.run(&["get", "live", "k"]).refused(4, &["live is volatile"]);
    store.run(&["flush", "live"]).refused(4, &["volatile"]);
    store.ok(&["put", "kept", "k", "1"]);
    store.run(&["put", "kept", "k", "2", "--volatile"]).refused(4, &["kept is persistent"]);
    store.ok(&["del", "live", "k", "--volatile"]);
    store.ok(&["flush"]);
    assert!(!store.file("live").exists() && store.file("kept").exists());
    store.ok(&["clear", "live", "--volatile"]);
    store.ok(&["put", "live", "k", "1", "--volatile"]);
    let dropped = store.run(&["drop", "live", "--volatile"]);
    assert!(dropped.code == 0 && dropped.stderr.contains("dropped with 1 record"), "{dropped:?}");

    store.ok(&["put", "live", "k", "1", "--volatile"]);
    daemon.stop();
    store.run(&["export", "live", "-", "--volatile"]).refused(3, &["commonhold serve"]);
    let _daemon = store.serve();
    assert_eq!(store.ok(&["count", "live", "--volatile"]), "0\n");
}

#[test]
fn workspaces_are_listed_with_what_they_hold() {
    let store = Store::new();
    let _daemon = store.serve();
    let empty = store.ok(&["workspaces"]);
    assert!(empty.lines().count() <= 2, "{empty}");
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["--workspace", "租户", "put", "n", "a", "[1, 2]"]);
    store.ok(&["flush"]);
    let listed = store.ok(&["workspaces"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["WORKSPACE", "NAMESPACES", "LOADED", "RECORDS", "BYTES", "FILES"]);
    assert_eq!(lines[1], ["./", "1", "1", "1", "2", "B", "10", "B"]);
    assert_eq!(lines[2], ["租户", "1", "1", "1", "6", "B", "14", "B"]);
    store.ok(&["--workspace", "租户", "drop", "n"]);
    assert_eq!(store.ok(&["workspaces"]).lines().count(), 2, "nothing is left of it");
}

#[test]
fn a_session_is_listed_and_can_be_ended() {
    let store = Store::new();
    let _daemon = store.serve();
    let listed = store.ok(&["sessions"]);
    assert!(
        listed.contains("REQUESTS") && listed.lines().last().is_some_and(|own| own.contains("commonhold")),
        "{listed}"
    );
    // An import that waits for its input holds a session.
    let mut worker = command(store.dir());
    worker.args(["import", "n", "-"]).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut worker = worker.spawn().expect("the binary runs");
    let session_of_worker = || {
        let list = store.ok(&["--json", "sessions"]);
        let sessions = list.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        sessions.filter(|session| session["pid"] == worker.id()).map(|session| session["id"].to_string()).next()
    };
    let id = common::wait_for("the worker's session", session_of_worker);
    let ended = store.run(&["sessions", "end", &id]);
    assert!(ended.code == 0 && ended.stderr.contains("has ended"), "{ended:?}");
    common::wait_for("the session is gone", || session_of_worker().is_none().then_some(()));
    store.run(&["sessions", "end", &id]).refused(1, &[&format!("no session {id}")]);
    store.run(&["sessions", "end", "seven"]).refused(2, &["ID"]);
    worker.kill().expect("a child of ours");
    worker.wait().expect("a child of ours");
}

#[test]
fn flush_writes_the_file_once_and_says_how_many() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["--workspace", "tenant", "put", "n", "a", "2"]);
    assert!(!store.file("n").exists());
    let flush = store.run(&["flush", "n"]);
    assert!(flush.code == 0 && flush.stderr.contains("1 file rewritten"), "{flush:?}");
    assert_eq!(std::fs::read_to_string(store.file("n")).expect("written"), "{\n\"a\":1\n}\n");
    let again = store.run(&["flush", "n"]);
    assert!(again.code == 0 && again.stderr.contains("0 files rewritten"), "{again:?}");
    let rewrite = store.run(&["flush", "n", "--rewrite"]);
    assert!(rewrite.code == 0 && rewrite.stderr.contains("1 file rewritten"), "{rewrite:?}");
    let all = store.run(&["flush"]);
    assert!(all.code == 0 && all.stderr.contains("1 file rewritten"), "{all:?}");
    let tenant = store.dir().join("tenant").join("kv_store_n.json");
    assert_eq!(std::fs::read_to_string(tenant).expect("written"), "{\n\"a\":2\n}\n");
    store.ok(&["put", "n", "a", "3"]);
    assert_eq!(store.run(&["flush", "--no-wait"]).code, 0);
    common::wait_for("the file is rewritten", || {
        (std::fs::read_to_string(store.file("n")).expect("there") == "{\n\"a\":3\n}\n").then_some(())
    });
}

#[test]
fn namespaces_lists_what_is_loaded_and_what_is_not() {
    let store = Store::new();
    std::fs::write(store.file("idle"), "{\"x\": 1}").expect("written");
    let _daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    store.ok(&["--workspace", "t", "put", "m", "a", "1"]);
    let listed = store.ok(&["namespaces"]);
    let line = |name: &str| listed.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    assert!(line("NAMESPACE").is_some_and(|head| head.contains("RECORDS") && head.contains("STATE")), "{listed}");
    assert!(line("n ").is_some_and(|line| line.ends_with("dirty")), "{listed}");
    assert!(line("t/m ").is_some(), "{listed}");
    assert!(line("idle ").is_some_and(|line| line.ends_with("not loaded")), "{listed}");
    assert!(!listed.contains('\u{1b}'), "colours are for terminals: {listed:?}");
    let only = store.ok(&["--workspace", "t", "namespaces"]);
    assert_eq!(only.lines().count(), 2, "{only}");
}

#[test]
fn status_leads_with_the_state() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    let status = store.ok(&["status"]);
    let first = status.lines().next().unwrap_or_default();
    assert!(first.starts_with("ready"), "{status}");
    assert!(status.contains(&daemon.pid().to_string()), "{status}");
    let row = |text: &str| text.lines().find(|line| line.starts_with("n ")).map(str::to_owned).expect("a row");
    assert!(row(&status).contains("dirty for "), "{status}");
    assert!(status.contains("waiting    1 namespace, n for "), "{status}");
    store.ok(&["flush"]);
    let status = store.ok(&["status"]);
    assert!(row(&status).contains(" ago, took ") && row(&status).ends_with("clean"), "{status}");
    assert!(status.contains("flushes    1 rewrite of files since the start, 10 B"), "{status}");
    assert!(!status.contains('\u{1b}'), "{status:?}");
    let ran = store.run(&["status", "--wait", "5"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn status_waits_for_a_daemon_and_for_what_it_preloads() {
    let store = Store::new();
    store.run(&["status", "--wait", "50ms"]).refused(3, &["commonhold serve"]);
    let record = |n: u32| format!("\"{n}\": {{\"text\": \"{}\"}}", "x".repeat(100));
    let records = (0..50_000).map(record).collect::<Vec<_>>().join(",\n");
    std::fs::write(store.file("large"), format!("{{{records}}}")).expect("written");
    std::fs::write(store.file("small"), "{}").expect("written");
    let _daemon = common::Daemon::spawn(store.dir(), &store.beside("daemon.log"), &["--preload", "all"]);
    let status: serde_json::Value =
        serde_json::from_str(&store.ok(&["--json", "status", "--wait", "30s"])).expect("JSON");
    assert_eq!(status["preloading"], false, "{status}");
    let states: Vec<_> = status["namespaces"].as_array().expect("a list").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["loaded", "loaded"], "{status}");
    assert_eq!(status["totals"]["records"], 50_000, "{status}");
}

#[test]
fn the_store_may_be_named_by_the_environment_or_be_the_current_directory() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "a", "1"]);
    let mut by_environment = std::process::Command::new(common::BINARY);
    by_environment.env("COMMONHOLD_STORE", store.dir()).args(["get", "n", "a"]);
    assert_eq!(ran(by_environment, b"").stdout, "1\n");
    let mut by_directory = std::process::Command::new(common::BINARY);
    by_directory.env_remove("COMMONHOLD_STORE").current_dir(store.dir()).args(["get", "n", "a"]);
    assert_eq!(ran(by_directory, b"").stdout, "1\n");
}

#[test]
fn merge_increment_and_append_change_a_record_in_place() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["merge", "n", "k", "{\"a\": 1, \"b\": [1.10]}"]);
    let merged = store.run_with(&["merge", "n", "k", "-"], b"{\"a\": null, \"c\": \"x\"}");
    assert!(merged.code == 0 && merged.stderr.contains("n \"k\": replaced, seq "), "{merged:?}");
    assert_eq!(store.ok(&["get", "n", "k"]), "{\"a\":null,\"b\":[1.10],\"c\":\"x\"}\n");

    let counted = store.run(&["increment", "n", "counts", "calls", "2"]);
    assert!(counted.code == 0 && counted.stderr.contains("new, seq "), "{counted:?}");
    store.ok(&["increment", "n", "counts", "calls", "-5"]);
    store.ok(&["increment", "n", "counts", "cost", "0.25"]);
    store.ok(&["increment", "n", "counts", "cost", "1e16"]);
    assert_eq!(store.ok(&["get", "n", "counts"]), "{\"calls\":-3,\"cost\":1e+16}\n");

    store.ok(&["append", "n", "numbers", "-1", "-5", "-Infinity", "-1e-3", "--keep-last", "2"]);
    store.ok(&["increment", "n", "numbers", "x", "-1.5e-3"]);
    assert_eq!(store.ok(&["get", "n", "numbers"]), "{\"-1\":[-Infinity,-1e-3],\"x\":-0.0015}\n");
    store.run(&["append", "n", "numbers", "-1", "-x"]).refused(2, &["unexpected argument '-x'"]);
    store.ok(&["append", "n", "job", "log", "\"started\"", "-1", "{\"at\": 7}"]);
    let piped = store.run_with(&["append", "n", "job", "log", "-", "--keep-last", "2"], b"\"done\"\n");
    assert_eq!(piped.code, 0, "{piped:?}");
    assert_eq!(store.ok(&["get", "n", "job"]), "{\"log\":[{\"at\":7},\"done\"]}\n");
}

#[test]
fn a_stamped_put_keeps_the_time_of_creation() {
    let store = Store::new();
    let _daemon = store.serve();
    let stamped = || -> serde_json::Value {
        store.ok(&["put", "n", "k", "{\"x\": 1, \"create_time\": 5}", "--stamp"]);
        serde_json::from_str(&store.ok(&["get", "n", "k"])).expect("JSON")
    };
    let first = stamped();
    let created = first["create_time"].as_u64().expect("whole seconds");
    assert!(created > 1_700_000_000, "a new record's own create_time does not count: {first}");
    assert_eq!((&first["_id"], &first["update_time"], &first["x"]), (&"k".into(), &created.into(), &1.into()));
    // As LightRAG has left it: the time of creation is another one than that of the put.
    store.ok(&["merge", "n", "k", "{\"create_time\": 1234567890}"]);
    let second = stamped();
    assert_eq!(second["create_time"], 1_234_567_890, "{second}");
    assert!(second["update_time"].as_u64() >= Some(created), "{second}");
}

#[test]
fn changes_keep_their_conditions_too() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["increment", "n", "k", "f", "1", "--if-absent"]);
    store.run(&["increment", "n", "k", "f", "1", "--if-absent"]).refused(4, &["n \"k\" has a record", "--if-absent"]);
    store.run(&["merge", "n", "x", "{}", "--if-seq", "1"]).refused(4, &["n \"x\" has no record", "--if-seq"]);
    store.run(&["append", "n", "k", "l", "1", "--if-seq", "1"]).refused(4, &["--if-seq refused"]);
    store.run(&["put", "n", "k", "1", "--if-token", "7"]).refused(4, &["token 7", "not held any more"]);
    store.ok(&["append", "n", "k", "l", "1", "--durability", "synced"]);
    assert_eq!(store.ok(&["get", "n", "k"]), "{\"f\":1,\"l\":[1]}\n");
}

#[test]
fn more_keys_than_a_request_takes_are_read_in_order_and_deleted_in_several() {
    let store = Store::new();
    let _daemon = store.serve();
    let records: String =
        (0..10_001).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect::<Vec<_>>().concat();
    assert_eq!(store.run_with(&["import", "n", "-", "--format", "lines"], records.as_bytes()).code, 0);
    store.ok(&["put", "n", "stays", "1"]);
    let keys: Vec<String> = (0..10_001).rev().map(|n| format!("k{n}")).collect();
    let with = |command| [command, "n"].into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>();
    let values: String = (0..10_001).rev().map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
    assert_eq!(store.ok(&with("get")), values);
    let deleted = store.run(&with("del"));
    assert!(deleted.code == 0 && deleted.stderr.contains("n: 10,001 records deleted, seq "), "{deleted:?}");
    assert_eq!(store.ok(&["keys", "n"]), "stays\n");
    store.run(&with("del")).refused(1, &["10,001 keys of 10001"]);
}

#[test]
fn what_was_only_read_is_no_namespace_that_could_be_dropped() {
    let store = Store::new();
    let _daemon = store.serve();
    for (n, kind) in [("kept", &[][..]), ("live", &["--volatile"])] {
        let with = |words: &[&'static str]| [words, kind].concat();
        assert_eq!(store.ok(&with(&["count", n])), "0\n");
        store.run(&with(&["drop", n])).refused(1, &[n, "there is no namespace", "nothing was dropped"]);
        assert!(!store.ok(&["namespaces"]).lines().any(|line| line.starts_with(n)));
        store.ok(&with(&["put", n, "k", "1"]));
        assert_eq!(store.run(&with(&["drop", n])).code, 0);
        store.run(&with(&["drop", n])).refused(1, &["there is no namespace"]);
        store.ok(&with(&["put", n, "k", "1"]));
        store.ok(&with(&["clear", n]));
        assert_eq!(store.run(&with(&["drop", n])).code, 0, "what was written to is one, also when it is empty");
    }
}

#[test]
fn a_counter_never_becomes_infinite() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["increment", "n", "k", "x", "1e308"]);
    store.run(&["increment", "n", "k", "x", "1e308"]).refused(4, &["not finite", "nothing was changed"]);
    assert_eq!(store.ok(&["get", "n", "k"]), "{\"x\":1e+308}\n");
    for by in ["NaN", "-Infinity", "1e400"] {
        store.run(&["increment", "n", "k", "x", by]).refused(2, &["no finite number"]);
    }
}

#[test]
fn a_daemon_in_the_background_holds_nobodys_directory_and_says_who_owns_the_store() {
    let store = Store::new();
    let detach = |dir: &str, words: &[&str]| {
        let mut command = std::process::Command::new(common::BINARY);
        command.env_remove("COMMONHOLD_STORE").current_dir(store.beside(""));
        command.args(words).args(["serve", "--detach", dir]);
        ran(command, b"")
    };
    let started = detach("store", &[]);
    assert_eq!((started.code, started.stdout.as_str()), (0, "ready\n"), "{started:?}");
    let status: serde_json::Value = serde_json::from_str(&store.ok(&["--json", "status"])).expect("JSON");
    if cfg!(target_os = "linux") {
        let own = std::fs::read_link(format!("/proc/{}/cwd", status["pid"])).expect("it runs");
        assert_eq!(own, std::path::Path::new("/"));
    }
    let owned = detach("./store", &[]);
    assert_eq!(owned.stdout, "owned\n");
    owned.refused(4, &["is owned by another daemon"]);
    let owned = detach("store", &["--json"]);
    assert_eq!((owned.code, owned.stdout.as_str()), (4, ""), "{owned:?}");
    // Its log, too, is JSON then.
    let said: Vec<serde_json::Value> =
        owned.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON, line by line")).collect();
    assert_eq!(said.last().expect("the error")["error"]["kind"], "refused");
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["stop"]);
    assert!(store.file("n").exists());
}
