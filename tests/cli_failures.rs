//! What the real binary says and how it ends when something is wrong: each exit code, with a sentence that tells what
//! failed, where, and what to do.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{BINARY, Daemon, Store, command, ran, wait_for};

/// A namespace name that is a path trick, or otherwise none.
const BAD_NAMESPACES: [&str; 7] = ["../x", "a/b", ".hidden", "", "a b", "租户", "a\\b"];

const BAD_WORKSPACES: [&str; 5] = ["..", ".", "a/b", ".commonhold", ".commonhold-shared"];

#[test]
fn a_daemon_whose_log_cannot_be_written_serves_all_the_same() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: there is no /dev/full here");
        return;
    }
    let store = Store::new();
    // Every write to it fails as on a full disk.
    let daemon = Daemon::start(store.dir(), std::path::Path::new("/dev/full"), &[]);
    store.ok(&["put", "n", "k", "1"]);
    store.ok(&["flush"]);
    assert_eq!(store.ok(&["get", "n", "k"]), "1\n");
    store.ok(&["stop"]);
    assert!(daemon.ended().success());
}

#[test]
fn without_a_daemon_every_command_ends_with_3_and_says_how_to_start_one() {
    let store = Store::new();
    let commands: [&[&str]; 21] = [
        &["status"],
        &["get", "n", "k"],
        &["put", "n", "k", "1"],
        &["merge", "n", "k", "{}"],
        &["increment", "n", "k", "f", "1"],
        &["append", "n", "k", "f", "1"],
        &["del", "n", "k"],
        &["drop", "n"],
        &["workspaces"],
        &["sessions"],
        &["sessions", "end", "1"],
        &["keys", "n"],
        &["scan", "n"],
        &["count", "n"],
        &["clear", "n"],
        &["namespaces"],
        &["commit"],
        &["flush"],
        &["flush", "n"],
        &["import", "n", "-"],
        &["stop"],
    ];
    for arguments in commands {
        store.run(arguments).refused(3, &["commonhold serve", &store.dir().display().to_string()]);
    }
    assert!(!store.dir().join(".commonhold").exists(), "a command that finds no daemon makes nothing");
}

#[test]
fn a_store_that_is_not_there_is_a_mistake_of_its_own() {
    let store = Store::new();
    let missing = store.beside("nowhere");
    let get = |dir: &PathBuf| {
        let mut command = command(dir);
        command.args(["get", "n", "k"]);
        ran(command, b"")
    };
    get(&missing).refused(2, &["nowhere", "--store"]);
    let file = store.beside("file");
    fs::write(&file, "x").expect("written");
    get(&file).refused(2, &["is not a directory"]);
    let mut serve = command(&missing);
    serve.arg("serve");
    ran(serve, b"").refused(2, &["nowhere"]);
    assert!(!missing.exists());
}

#[test]
fn bad_names_are_refused_with_their_rule_and_make_nothing() {
    let store = Store::new();
    let _daemon = store.serve();
    for name in BAD_NAMESPACES {
        store.run(&["put", name, "k", "1"]).refused(2, &["cannot name a namespace", "1 to 128"]);
        store.run(&["export", name, "-"]).refused(2, &["cannot name a namespace"]);
    }
    store.run(&["get", &"x".repeat(129), "k"]).refused(2, &["cannot name a namespace"]);
    for name in BAD_WORKSPACES {
        store.run(&["--workspace", name, "put", "n", "k", "1"]).refused(2, &["cannot name a workspace"]);
    }
    store.run(&["--workspace", "..", "namespaces"]).refused(2, &["cannot name a workspace"]);
    assert_eq!(store.ok(&["--json", "namespaces"]), "");
    store.ok(&["put", "Case", "k", "1"]);
    store.run(&["put", "case", "k", "1"]).refused(4, &["Case", "letter case"]);
}

#[test]
fn invalid_json_is_shown_with_its_place_and_changes_nothing() {
    let store = Store::new();
    let _daemon = store.serve();
    let ran = store.run(&["put", "n", "k", "{\"a\":1 2}"]);
    ran.refused(2, &["\"k\"", "byte 7", "line 1, column 8", "  {\"a\":1 2}\n         ^"]);
    let multiline = store.run_with(&["put", "n", "k", "-"], b"{\n \"a\": tru,\n}");
    multiline.refused(2, &["line 2", "  \"a\": tru,"]);
    store.run(&["put", "n", "k", ""]).refused(2, &["line 1, column 1"]);
    store.run(&["put", "n", "k", "\"租户\u{1}\""]).refused(2, &["line 1, column 4"]);
    store.run_with(&["put", "n", "k", "-"], b"\"\xff\"").refused(2, &["not UTF-8 at byte 1"]);
    let deep = format!("{}{}", "[".repeat(1_025), "]".repeat(1_025));
    store.run(&["put", "n", "k", &deep]).refused(2, &["1024"]);
    assert_eq!(store.ok(&["count", "n"]), "0\n");
}

#[test]
fn changes_that_do_not_fit_the_record_are_refused_and_change_nothing() {
    let store = Store::new();
    let _daemon = store.serve();
    store.ok(&["put", "n", "list", "[1]"]);
    store.ok(&["put", "n", "k", "{\"text\": \"x\", \"n\": 9223372036854775807, \"l\": {}}"]);
    let before = store.ok(&["scan", "n"]);
    let refused = |arguments: &[&str], code, words: &[&str]| store.run(arguments).refused(code, words);

    refused(
        &["merge", "n", "list", "{}"],
        4,
        &["n \"list\": the value must be an object", "list", "nothing was changed"],
    );
    refused(&["increment", "n", "list", "f", "1"], 4, &["the value must be an object"]);
    refused(&["increment", "n", "k", "text", "1"], 4, &["field \"text\" must be a number", "string"]);
    refused(&["append", "n", "k", "l", "1"], 4, &["field \"l\" must be", "object"]);
    refused(
        &["increment", "n", "k", "n", "1"],
        4,
        &["field \"n\" holds, or would come to, an integer beyond 64 bits", "nothing was changed"],
    );

    refused(&["merge", "n", "k", "[1]"], 2, &["the fields must be a JSON object"]);
    refused(&["put", "n", "k", "7", "--stamp"], 2, &["a stamped value must be a JSON object"]);
    refused(&["merge", "n", "k", "{\"a\":1 2}"], 2, &["line 1, column 8", "  {\"a\":1 2}\n         ^"]);
    refused(&["append", "n", "k", "new", "1", "tru"], 2, &["item 2 for key \"k\" is not JSON", "line 1, column 4"]);
    refused(&["append", "n", "k", "new", "1],[2"], 2, &["item 1", "line 1, column 2"]);
    refused(&["append", "n", "k", "new", "-", "-"], 2, &["only one item"]);
    for bad in ["one", "9223372036854775808", "", "0x10", "1,5"] {
        refused(&["increment", "n", "k", "n", bad], 2, &["BY"]);
    }
    refused(&["append", "n", "k", "new", "1", "--keep-last", "-1"], 2, &["--keep-last"]);
    assert_eq!(store.ok(&["scan", "n"]), before);
}

#[test]
fn a_value_that_is_or_would_become_too_long_to_be_changed_stays_as_it_is() {
    let store = Store::new();
    let _daemon = store.serve();
    const MIB: usize = 1024 * 1024;
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(MIB));
    store.run_with(&["put", "n", "long", "-"], long.as_bytes());
    store.run(&["merge", "n", "long", "{}"]).refused(4, &["1048576"]);
    store.run(&["increment", "n", "long", "f", "1"]).refused(4, &["1048576"]);
    store.ok(&["put", "n", "k", "{\"l\": []}"]);
    let item = format!("\"{}\"", "x".repeat(MIB / 2));
    assert_eq!(store.run_with(&["append", "n", "k", "l", "-"], item.as_bytes()).code, 0);
    store.run_with(&["append", "n", "k", "l", "-"], item.as_bytes()).refused(4, &["1048576"]);
    let last = item.replace('x', "y");
    let kept = store.run_with(&["append", "n", "k", "l", "-", "--keep-last", "1"], last.as_bytes());
    assert_eq!(kept.code, 0, "what is left counts: {kept:?}");
    assert_eq!(store.ok(&["get", "n", "long"]), format!("{long}\n"));
    assert_eq!(store.ok(&["get", "n", "k"]), format!("{{\"l\":[{last}]}}\n"));
}

#[test]
fn over_long_keys_and_values_are_refused_with_their_limit() {
    let store = Store::new();
    let _daemon = store.serve();
    let longest = "k".repeat(64 * 1024);
    store.ok(&["put", "n", &longest, "1"]);
    assert_eq!(store.ok(&["get", "n", &longest]), "1\n");
    store.run(&["put", "n", &format!("{longest}k"), "1"]).refused(4, &["65537", "65536"]);
    let value = format!("\"{}\"", "v".repeat(32 * 1024 * 1024));
    store.run_with(&["put", "n", "v", "-"], value.as_bytes()).refused(4, &["33554432"]);
    store.run_with(&["put", "n", "v", "-"], " ".repeat(65 * 1024 * 1024).as_bytes()).refused(4, &["67108864"]);
    store.run(&["get", "n", "v"]).refused(1, &["\"v\""]);
}

#[test]
fn wrong_usage_ends_with_2() {
    let store = Store::new();
    for arguments in [["nonsense"].as_slice(), &["get"], &["get", "n"], &["put", "n", "k"], &["--store"], &[]] {
        assert_eq!(store.run(arguments).code, 2, "{arguments:?}");
    }
    store.run(&["put", "n", "k", "1", "--if-absent", "--if-seq", "1"]).refused(2, &["--if-seq"]);
    store.run(&["serve", "--durability", "wish"]).refused(2, &["buffered", "synced"]);
    store.run(&["serve", "--flush-lock-timeout", "soon"]).refused(2, &["30s"]);
}

#[test]
fn a_second_daemon_is_refused_and_the_first_is_named() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    store.run(&["serve"]).refused(4, &[&format!("pid {}", daemon.pid()), "since 20"]);
    assert_eq!(store.ok(&["get", "n", "k"]), "1\n", "the first daemon goes on");
    daemon.stop();
}

#[test]
fn a_damaged_namespace_file_closes_that_namespace_and_no_other() {
    let store = Store::new();
    fs::write(store.file("bad"), "{\n\"a\": 1,\n\"b\": tru\n}\n").expect("written");
    fs::write(store.file("good"), "{\"a\": 1}").expect("written");
    let _daemon = store.serve();
    for arguments in [["get", "bad", "a"].as_slice(), &["put", "bad", "a", "1"], &["scan", "bad"], &["count", "bad"]] {
        store.run(arguments).refused(5, &["kv_store_bad.json", "line 3"]);
    }
    store.run(&["drop", "bad"]).refused(5, &["kv_store_bad.json"]);
    let target = store.beside("out.json");
    store.run(&["export", "bad", target.to_str().expect("UTF-8")]).refused(5, &["kv_store_bad.json"]);
    assert!(!target.exists());
    assert_eq!(store.ok(&["get", "good", "a"]), "1\n");
    store.ok(&["put", "good", "b", "2"]);
    store.ok(&["flush", "good"]);
    assert_eq!(fs::read_to_string(store.file("bad")).expect("there"), "{\n\"a\": 1,\n\"b\": tru\n}\n");
    let listed = store.ok(&["namespaces"]);
    assert!(listed.contains("closed"), "{listed}");
    let status = store.ok(&["status"]);
    assert!(status.lines().next().unwrap_or_default().contains("damage"), "{status}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_directory_that_may_not_be_written_is_refused() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;
    let store = Store::new();
    let mut serve = std::process::Command::new(BINARY);
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        // Root may write everywhere, so that the daemon must be somebody else, with a binary within his reach.
        let binary = store.beside("commonhold");
        fs::copy(BINARY, &binary).expect("copied");
        for path in [store.beside(""), store.dir().to_owned()] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        serve = std::process::Command::new(binary);
        serve.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    fs::set_permissions(store.dir(), fs::Permissions::from_mode(0o555)).expect("chmod");
    serve.arg("serve").arg(store.dir());
    let refused = ran(serve, b"");
    fs::set_permissions(store.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    refused.refused(4, &[&store.dir().display().to_string(), "ermission denied"]);
}

#[test]
fn a_directory_in_place_of_input_is_a_mistake_of_the_command() {
    let store = Store::new();
    let _daemon = store.serve();
    for arguments in [&["put", "n", "k", "-"][..], &["append", "n", "k", "f", "-"], &["import", "n", "-"]] {
        let mut command = command(store.dir());
        let directory = fs::File::open(store.dir()).expect("opened");
        let output = command.args(arguments).stdin(directory).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.contains("reading standard input failed: Is a directory") && said.contains("nothing was"),
            "{said}"
        );
    }
    assert_eq!(store.ok(&["count", "n"]), "0\n");
}

#[test]
#[cfg(target_os = "linux")]
fn stores_and_files_of_any_name_work_and_commands_for_them_can_be_pasted() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let store = Store::new();
    let names: [&[u8]; 5] = [b"with space", b"new\nline", b"it's", b"\xff\xfe", b"-dash"];
    for name in names {
        let dir = store.beside("").join(OsStr::from_bytes(name));
        fs::create_dir(&dir).expect("created");
        let run = |arguments: &[&str]| {
            // A relative path, without HOME.
            let mut command = std::process::Command::new(BINARY);
            command.env_clear().current_dir(store.beside(""));
            let mut option = std::ffi::OsString::from("--store=");
            option.push(OsStr::from_bytes(name));
            command.arg(option).args(arguments);
            ran(command, b"")
        };
        let none = run(&["get", "n", "k"]);
        none.refused(3, &["commonhold serve "]);
        let daemon = Daemon::start(&dir, &store.beside("odd.log"), &[]);
        assert_eq!(run(&["put", "n", "k", "1"]).code, 0, "{dir:?}");
        assert_eq!(run(&["get", "n", "k"]).stdout, "1\n");
        // As long as a name may be: the temporary one must not be longer.
        let target = dir.join("x".repeat(255));
        assert_eq!(run(&["export", "n", "-"]).stdout, "{\n\"k\":1\n}\n");
        let mut export = command(&dir);
        export.args(["export", "n"]).arg(&target);
        assert_eq!(ran(export, b"").code, 0);
        assert!(target.exists());
        daemon.stop();
        if let (Ok(name), false) = (str::from_utf8(name), name.contains(&b'\n')) {
            let (_, pasted) = none.stderr.trim().rsplit_once("`commonhold serve ").expect("how to start one");
            let words = format!("printf %s {}", pasted.trim_end_matches('`').trim_start_matches("-- "));
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &words]);
            assert_eq!(ran(shell, b"").stdout, name);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn bytes_that_are_no_text_are_refused_and_shown() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let store = Store::new();
    let odd = |words: &[&str], json: bool| {
        let mut command = command(store.dir());
        command.args(words).arg(OsStr::from_bytes(b"a\xffb"));
        if json {
            command.arg("--json");
        }
        ran(command, b"")
    };
    for words in [&["get", "n"][..], &["put", "n", "k"], &["keys", "n", "--prefix"], &["count", "--workspace"]] {
        odd(words, false).refused(2, &["not UTF-8: \"a\\xffb\"", "keys"]);
        let json: serde_json::Value = serde_json::from_str(&odd(words, true).stderr).expect("a line of JSON");
        assert_eq!(json["error"]["kind"], "usage");
    }
}

#[test]
fn a_very_long_path_works() {
    let store = Store::new();
    let mut dir = store.beside("deep");
    while dir.as_os_str().len() < 400 {
        dir.push("a_directory_name_of_some_length");
    }
    fs::create_dir_all(&dir).expect("created");
    let daemon = Daemon::start(&dir, &store.beside("deep.log"), &[]);
    let run = |arguments: &[&str]| {
        let mut command = command(&dir);
        command.args(arguments);
        ran(command, b"")
    };
    assert_eq!(run(&["put", "n", "k", "1"]).code, 0);
    assert_eq!(run(&["get", "n", "k"]).stdout, "1\n");
    daemon.stop();
    assert!(dir.join("kv_store_n.json").exists());
}

#[test]
fn a_copied_store_is_not_taken_for_the_original() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    let copy = store.beside("copy");
    fs::create_dir(&copy).expect("created");
    fs::create_dir(copy.join(".commonhold")).expect("created");
    let mut get = command(&copy);
    get.args(["get", "n", "k"]);
    ran(get, b"").refused(3, &["commonhold serve"]);
    daemon.stop();
}

#[test]
fn a_flush_that_waits_too_long_for_a_reader_ends_with_8() {
    let store = Store::new();
    let daemon = store.serve_with(&["--flush-lock-timeout", "50ms"]);
    store.ok(&["put", "n", "k", "1"]);
    let lock_dir = store.dir().join(".commonhold/flush/@");
    fs::create_dir_all(&lock_dir).expect("created");
    let lock = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock_dir.join("n.lock"))
        .expect("opened");
    lock.lock_shared().expect("locked");
    store.run(&["flush", "n"]).refused(8, &["n.lock"]);
    // Of all it means the same; the others are flushed.
    store.ok(&["put", "free", "k", "1"]);
    store.run(&["flush"]).refused(8, &["flush of n gave up", "n.lock"]);
    assert!(store.file("free").exists());
    drop(lock);
    store.ok(&["flush", "n"]);
    daemon.stop();
}

#[test]
fn a_killed_daemon_leaves_nothing_that_hinders_the_next() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "\"acknowledged\""]);
    daemon.kill();
    assert!(store.dir().join(".commonhold/socket").exists(), "a killed daemon leaves its socket");
    store.run(&["get", "n", "k"]).refused(3, &["commonhold serve"]);
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "k"]), "\"acknowledged\"\n");
    daemon.stop();
    assert!(!store.dir().join(".commonhold/socket").exists(), "a stopped one takes it away");
    assert_eq!(fs::read_to_string(store.file("n")).expect("flushed"), "{\n\"k\":\"acknowledged\"\n}\n");
}

#[test]
fn stop_returns_when_the_next_daemon_can_start() {
    let store = Store::new();
    for round in 0..3 {
        let daemon = store.serve();
        store.ok(&["put", "n", "k", &round.to_string()]);
        let stop = store.run(&["stop"]);
        assert!(stop.code == 0 && stop.stderr.contains("stopped"), "{stop:?}");
        // The child is not reaped yet: `stop` must not take its remains for a process that still runs.
        let next = store.serve();
        assert_eq!(store.ok(&["get", "n", "k"]), format!("{round}\n"));
        next.stop();
        assert!(daemon.ended().success());
    }
}

#[test]
fn a_stop_that_cannot_flush_returns_when_the_daemon_has_ended_and_with_its_outcome() {
    let store = Store::new();
    for round in 0..5 {
        let daemon = store.serve();
        store.ok(&["put", "n", "k", &round.to_string()]);
        fs::create_dir_all(store.file("n").join("in the way")).expect("made");
        let stop = store.run(&["stop"]);
        // Its remains are not reaped yet, but it has ended.
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()));
        assert!(stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")), "the process runs on");
        let ended = daemon.ended();
        stop.refused(ended.code().expect("it ended by itself"), &["n", "kv_store_n.json", "a directory"]);
        fs::remove_dir_all(store.file("n")).expect("removed");
    }
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "n", "k"]), "4\n", "the journal has it");
    daemon.stop();
}

#[test]
fn what_was_deleted_or_edited_while_the_daemon_ran_is_written_again_by_a_stop() {
    let store = Store::new();
    let daemon = store.serve();
    for name in ["deleted", "edited"] {
        store.ok(&["put", name, "k", "1"]);
    }
    store.ok(&["flush"]);
    fs::remove_file(store.file("deleted")).expect("removed");
    fs::write(store.file("edited"), "{\"theirs\": 1}").expect("written");
    store.ok(&["commit"]);
    daemon.stop();
    for name in ["deleted", "edited"] {
        assert_eq!(fs::read_to_string(store.file(name)).expect("is there"), "{\n\"k\":1\n}\n");
    }
    let kept = fs::read_dir(store.dir().join(".commonhold/generations/@/edited")).expect("is there");
    let kept: Vec<_> = kept.map(|entry| entry.expect("listed").path()).collect();
    let theirs = kept.iter().find(|path| path.to_string_lossy().ends_with(".foreign.json")).expect("theirs is kept");
    assert_eq!(fs::read_to_string(theirs).expect("is there"), "{\"theirs\": 1}");

    // And one that is torn while nobody runs holds the journal, which `status` tells.
    fs::write(store.file("edited"), "{\"k\":").expect("written");
    let daemon = store.serve();
    let status = store.ok(&["--json", "status"]);
    assert!(status.contains("kv_store_edited.json is not what was flushed"), "{status}");
    assert!(store.ok(&["status"]).contains("commonhold check"));
    daemon.stop();
}

#[test]
fn sigterm_flushes_and_ends_with_0() {
    let store = Store::new();
    let daemon = store.serve();
    store.ok(&["put", "n", "k", "1"]);
    let pid = rustix::process::Pid::from_raw(daemon.pid().cast_signed()).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert!(daemon.ended().success());
    wait_for("the file is there", || store.file("n").exists().then_some(()));
}

#[test]
fn two_signals_in_the_same_moment_are_one_wish_and_the_files_are_flushed() {
    use rustix::process::{Pid, Signal, kill_process};
    for _ in 0..5 {
        let store = Store::new();
        let daemon = store.serve();
        store.ok(&["put", "n", "k", "1"]);
        let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a process id");
        // As `timeout` does, which signals the process and its group; two kinds, so that they are not merged on the way.
        for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
            kill_process(pid, signal).expect("signalled");
        }
        assert!(daemon.ended().success());
        assert_eq!(std::fs::read_to_string(store.file("n")).expect("the file is there"), "{\n\"k\":1\n}\n");
    }
}
