//! Who may come in, and what is followed: other users' processes in both directions, modes, directories that others can
//! change, links where the store's own files belong, and links that come and go while it works. `docs/security.md` says
//! what is promised. What takes a second user is tried as root alone; elsewhere the run says that it was not.
#![cfg(feature = "daemon")]

mod common;

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, DEADLINE, Daemon, Ran, Store, command, ran, wait_for};
use commonhold::blocking::{Client, ConnectOptions};
use commonhold::proto::frame::FrameKind;
use commonhold::proto::hello::{HELLO_BYTES, Hello};
use commonhold::proto::{Event, Fault, StoreIdentity, codec};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Two users who are neither this one nor root.
const STRANGER: u32 = 65_534;
const ANOTHER: u32 = 65_533;

/// Whether this is root, who can be other users; says loudly what is not tried otherwise.
fn can_be_others(what: &str) -> bool {
    let own = commonhold::ipc::own_uid();
    if own != 0 {
        // Not `eprintln!`, which the harness keeps to itself when the test passes.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED, NOT TRIED AS ANOTHER USER (this is user {own}, not root): {what}");
    }
    own == 0
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// The store's directory and the one above it let everybody through.
fn let_all_through(store: &Store) {
    set_mode(store.dir().parent().unwrap(), 0o755);
    set_mode(store.dir(), 0o755);
}

/// The binary where any user can reach it.
fn reachable_binary(store: &Store) -> PathBuf {
    let binary = store.beside("commonhold");
    fs::copy(BINARY, &binary).unwrap();
    set_mode(&binary, 0o755);
    binary
}

/// The binary as another user, with what it says.
fn run_as(user: u32, binary: &Path, store: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(binary);
    command
        .uid(user)
        .gid(user)
        .current_dir("/")
        .env_remove("COMMONHOLD_STORE")
        .arg("--store")
        .arg(store)
        .args(arguments);
    ran(command, b"")
}

/// Does something on a thread that is another user's; the rest of the process stays root's.
fn as_user<T: Send>(user: u32, work: impl FnOnce() -> T + Send) -> T {
    let become_user = || {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    };
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            become_user();
            work()
        });
        worker.join().unwrap()
    })
}

/// Everything below a directory, links not followed.
fn all_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            found.extend(all_below(&path));
        }
        found.push(path);
    }
    found
}

// --- Modes.

/// What `docs/security.md` says of the mode of something in a store.
fn allowed_modes(store: &Path, path: &Path) -> &'static [u32] {
    let found = fs::symlink_metadata(path).unwrap();
    let inside = path.strip_prefix(store).unwrap();
    let name = inside.file_name().unwrap().to_str().unwrap();
    match inside.components().next().unwrap().as_os_str().to_str().unwrap() {
        ".commonhold" if found.is_dir() => &[0o700],
        // Kept files are the very files that were replaced.
        ".commonhold" if inside.starts_with(".commonhold/generations") => &[0o600, 0o640, 0o644],
        ".commonhold" => &[0o600],
        ".commonhold-shared" if found.is_dir() => &[0o711],
        ".commonhold-shared" => &[0o666],
        "kv_store_old.json" => &[0o640],
        _ if found.is_dir() => &[0o755],
        _ if name.starts_with("kv_store_") => &[0o644],
        _ => panic!("nothing is known of {}", path.display()),
    }
}

#[test]
fn modes_are_those_of_the_text_whatever_the_umask() {
    for umask in ["000", "022", "077", "137"] {
        let store = Store::new();
        set_mode(store.dir(), 0o755);
        let old = store.file("old");
        fs::write(&old, "{}").unwrap();
        set_mode(&old, 0o640);
        let script = format!("umask {umask}; exec \"$0\" --store \"$1\" serve --detach --allow-uid {ANOTHER}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(BINARY).arg(store.dir()).env_remove("COMMONHOLD_STORE");
        let started = ran(command, b"");
        assert_eq!(started.code, 0, "umask {umask}: {started:?}");
        let stops = StopsAtLast(store.dir().to_owned());
        for n in ["1", "2", "3"] {
            store.ok(&["put", "new", "k", n]);
            store.ok(&["put", "old", "k", n]);
            store.ok(&["--workspace", "w", "put", "new", "k", n]);
            store.ok(&["flush"]);
        }
        let mut sockets = 0;
        for path in all_below(store.dir()) {
            let found = mode(&path);
            assert!(
                allowed_modes(store.dir(), &path).contains(&found),
                "umask {umask}: {} has mode {found:o}",
                path.display()
            );
            sockets += usize::from(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        }
        assert_eq!(sockets, 2);
        drop(stops);
        assert!(store.dir().join(".commonhold/files.json").exists(), "the end has left its note");
        assert_eq!(mode(&store.dir().join(".commonhold/files.json")), 0o600);
    }
}

#[test]
fn a_user_whose_umask_takes_its_own_rights_away_is_served_and_what_such_a_start_left_is_mended() {
    let user = if can_be_others("a daemon whose modes count") { STRANGER } else { commonhold::ipc::own_uid() };
    for umask in ["277", "777"] {
        let store = Store::new();
        let_all_through(&store);
        let binary = reachable_binary(&store);
        chown(store.dir(), Some(user), None).unwrap();
        let ok = |arguments: &[&str]| {
            let ran = run_as(user, &binary, store.dir(), arguments);
            assert_eq!(ran.code, 0, "umask {umask}, {arguments:?}: {ran:?}");
        };
        // As a start under such a umask once left it.
        let own = store.dir().join(".commonhold");
        fs::create_dir(&own).unwrap();
        chown(&own, Some(user), None).unwrap();
        set_mode(&own, 0);
        for again in ["1", "2"] {
            let script = format!("umask {umask}; exec \"$0\" --store \"$1\" serve --detach --allow-uid {ANOTHER}");
            // 126: another test's child, forked meanwhile, has the binary open that was just copied.
            let started = wait_for("the binary to be free", || {
                let mut command = Command::new("sh");
                command.uid(user).current_dir("/").env_remove("COMMONHOLD_STORE");
                command.arg("-c").arg(&script).arg(&binary).arg(store.dir());
                Some(ran(command, b"")).filter(|started| started.code != 126)
            });
            assert_eq!(started.code, 0, "umask {umask}: {started:?}");
            ok(&["put", "n", "k", again]);
            ok(&["--workspace", "w", "put", "n", "k", again]);
            ok(&["flush"]);
            ok(&["--workspace", "w", "flush", "n"]);
            ok(&["stop"]);
            fs::remove_dir_all(store.dir().join(".commonhold-shared")).unwrap();
        }
    }
}

#[test]
fn repair_by_root_of_another_users_store_is_refused_and_changes_nothing() {
    if !can_be_others("a repair of another user's store") {
        return;
    }
    let store = Store::new();
    let_all_through(&store);
    let binary = reachable_binary(&store);
    fs::write(store.file("n"), "{broken").unwrap();
    chown(store.dir(), Some(STRANGER), None).unwrap();
    chown(store.file("n"), Some(STRANGER), None).unwrap();
    assert_eq!(run_as(STRANGER, &binary, store.dir(), &["serve", "--detach"]).code, 0);
    assert_eq!(run_as(STRANGER, &binary, store.dir(), &["stop"]).code, 0);
    let owners = || -> Vec<_> {
        let owner = |path: PathBuf| (fs::symlink_metadata(&path).unwrap().uid(), path);
        all_below(store.dir()).into_iter().map(owner).collect()
    };
    let before = owners();
    for how in [
        &["repair", "n", "--set-aside", "--yes"][..],
        &["repair", "n", "--keep", "file", "--yes"],
        &["repair", "n", "--apply", "journal", "--yes"],
        &["repair", "n", "--generation", "1", "--yes"],
        &["repair", "--cut-journal", "--yes"],
    ] {
        let refused = run_as(0, &binary, store.dir(), how);
        assert_eq!(refused.code, 4, "{how:?}: {refused:?}");
        let words = format!("{refused:?}");
        assert!(words.contains(&format!("it belongs to user {STRANGER}")) && words.contains("sudo -u"), "{words}");
        assert_eq!(owners(), before, "{how:?}");
    }
    let repaired = run_as(STRANGER, &binary, store.dir(), &["repair", "n", "--set-aside", "--yes"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert_eq!(run_as(STRANGER, &binary, store.dir(), &["serve", "--detach"]).code, 0);
    assert_eq!(run_as(STRANGER, &binary, store.dir(), &["put", "n", "k", "1"]).code, 0);
    assert_eq!(run_as(STRANGER, &binary, store.dir(), &["stop"]).code, 0);
}

/// Stops a daemon that went to the background.
struct StopsAtLast(PathBuf);

impl Drop for StopsAtLast {
    fn drop(&mut self) {
        let mut command = command(&self.0);
        command.arg("stop");
        ran(command, b"");
    }
}

// --- Directories.

/// Starts a daemon that must end by itself, and tells how.
fn refused_start(store: &Store) -> (i32, String) {
    let log = store.beside("refused.log");
    let daemon = Daemon::spawn(store.dir(), &log, &[""; 0]);
    let status = daemon.ended();
    (status.code().unwrap_or(-1), fs::read_to_string(log).unwrap())
}

#[test]
fn a_store_that_everybody_can_write_into_or_replace_is_refused() {
    let store = Store::new();
    let above = store.dir().parent().unwrap();
    for (path, bits) in [(above, 0o777), (store.dir(), 0o777), (store.dir(), 0o1777)] {
        let before = mode(path);
        set_mode(path, bits);
        let (code, words) = refused_start(&store);
        assert_eq!(code, 4, "{words}");
        assert!(words.contains("everybody may write into") && words.contains("chmod o-w"), "{words}");
        assert!(!store.dir().join(".commonhold").exists(), "nothing was made there");
        set_mode(path, before);
    }
    set_mode(above, 0o1777);
    store.serve().stop();
}

#[test]
fn directories_of_another_user_are_refused_below_and_told_above() {
    if !can_be_others("a store that belongs to another user") {
        return;
    }
    let store = Store::new();
    chown(store.dir(), Some(STRANGER), None).unwrap();
    let (code, words) = refused_start(&store);
    assert!(code == 4 && words.contains(&format!("it belongs to user {STRANGER}")), "{code}: {words}");
    chown(store.dir(), Some(0), None).unwrap();
    for name in [".commonhold", ".commonhold-shared"] {
        // Another user can only have made it where everybody could write once, as below a sticky directory.
        let own = store.dir().join(name);
        fs::create_dir(&own).unwrap();
        chown(&own, Some(STRANGER), None).unwrap();
        let log = store.beside("refused.log");
        let daemon = Daemon::spawn(store.dir(), &log, &["--allow-uid", "1"]);
        assert_eq!(daemon.ended().code(), Some(4), "{name}");
        let words = fs::read_to_string(log).unwrap();
        assert!(words.contains(&format!("it belongs to user {STRANGER}")), "{words}");
        fs::remove_dir_all(&own).unwrap();
    }
    let above = store.dir().parent().unwrap();
    chown(above, Some(STRANGER), None).unwrap();
    let daemon = store.serve();
    assert!(daemon.log().contains(&format!("user {STRANGER}, its owner, may write into {}", above.display())));
    daemon.stop();
    chown(above, Some(0), Some(STRANGER)).unwrap();
    set_mode(above, 0o770);
    let workspace = store.dir().join("open");
    fs::create_dir(&workspace).unwrap();
    set_mode(&workspace, 0o777);
    let daemon = store.serve();
    assert!(daemon.log().contains(&format!("group {STRANGER} may write into {}", above.display())), "{}", daemon.log());
    assert!(daemon.log().contains("everybody may write into the workspace"), "{}", daemon.log());
    daemon.stop();
}

// --- Other users, in both directions.

/// What the daemon says to a hello: its own, and the reason why it closes.
fn what_a_hello_is_answered(mut stream: UnixStream, store: StoreIdentity) -> Fault {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&Hello::of_client(7, store).to_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let (hello, rest) = bytes.split_at(HELLO_BYTES);
    Hello::from_bytes(hello.try_into().unwrap()).unwrap();
    let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
    assert_eq!(rest.len(), 4 + length, "there is more than one frame: {rest:?}");
    assert_eq!(rest[12], FrameKind::Event as u8);
    match codec::decode_event(&rest[13..]).unwrap() {
        Event::Closing(fault) => fault,
    }
}

#[test]
fn another_users_process_is_told_that_it_may_not_come_in_also_where_every_mode_lets_it() {
    if !can_be_others("a client of another user at an owner's daemon") {
        return;
    }
    let store = Store::new();
    let_all_through(&store);
    let binary = reachable_binary(&store);
    let daemon = store.serve();
    store.ok(&["put", "s", "a", "1"]);
    let (own, socket) = (store.dir().join(".commonhold"), store.dir().join(".commonhold/socket"));
    // The modes keep others out.
    let closed = as_user(STRANGER, || UnixStream::connect(&socket).unwrap_err());
    assert_eq!(closed.kind(), ErrorKind::PermissionDenied);
    // Without them the daemon does.
    set_mode(&own, 0o755);
    set_mode(&socket, 0o666);
    run_as(STRANGER, &binary, store.dir(), &["get", "s", "a"])
        .refused(4, &[&format!("user {STRANGER} may not use this store"), "--allow-uid"]);
    let identity = commonhold::ipc::store_identity(store.dir()).unwrap();
    let fault = as_user(STRANGER, || what_a_hello_is_answered(UnixStream::connect(&socket).unwrap(), identity));
    assert_eq!(fault, Fault::Forbidden { uid: STRANGER, owner: 0 });
    // Neither did it learn anything nor is anybody else kept out.
    assert_eq!(store.ok(&["get", "s", "a"]), "1\n");
    assert!(daemon.log().contains(&format!("user {STRANGER} may not use this store")), "{}", daemon.log());
    daemon.stop();
}

/// Where the daemon's version table lies.
fn table_of(owner: &Client) -> PathBuf {
    let status: serde_json::Value = serde_json::from_str(&owner.status().unwrap()).unwrap();
    PathBuf::from(status["near_cache"]["table"].as_str().expect("a Linux has a tmpfs"))
}

#[test]
fn a_user_who_is_let_in_keeps_values_by_a_table_that_it_cannot_change() {
    if !can_be_others("a near cache of another user") {
        return;
    }
    let store = Store::new();
    let_all_through(&store);
    let daemon = store.serve_with(&["--allow-uid", &STRANGER.to_string()]);
    let owner = Client::connect(store.dir()).unwrap();
    let options = || ConnectOptions::new().reconnect_for(Duration::from_millis(200));
    let guest = as_user(STRANGER, || options().connect(store.dir()).unwrap());
    let (owners, guests) = (owner.namespace("docs").unwrap(), guest.namespace("docs").unwrap());
    assert!(guest.cache_stats().on, "it has the table");
    for n in 0..200_u64 {
        // Each sees what the other was told of, whatever it keeps.
        let (writes, reads) = if n % 2 == 0 { (&owners, &guests) } else { (&guests, &owners) };
        writes.put("k", &n).unwrap();
        for _ in 0..3 {
            assert_eq!(reads.get::<u64>("k").unwrap(), Some(n));
        }
    }
    assert!(guest.cache_stats().hits >= 200, "{:?}", guest.cache_stats());
    let table = table_of(&owner);
    let found = fs::metadata(&table).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o644));
    let refused = as_user(STRANGER, || {
        let written = fs::OpenOptions::new().write(true).open(&table).map(drop);
        [written, fs::remove_file(&table)].map(|done| done.unwrap_err().kind())
    });
    assert_eq!(refused, [ErrorKind::PermissionDenied; 2]);

    // The next daemon does not let it in: what it keeps is void, though it has the file mapped.
    daemon.kill();
    let daemon = store.serve();
    assert_eq!(mode(&table), 0o600, "the table that was taken over is for its owner alone");
    let refused = as_user(STRANGER, || guests.get::<u64>("k")).unwrap_err();
    assert!(refused.to_string().contains("Permission denied"), "{refused}");
    assert_eq!(owners.get::<u64>("k").unwrap(), Some(199));
    daemon.stop();
}

#[test]
fn a_user_who_cannot_read_the_table_asks_for_every_value() {
    if !can_be_others("a near cache of another user") {
        return;
    }
    let store = Store::new();
    let_all_through(&store);
    let closed = store.serve();
    let owner = Client::connect(store.dir()).unwrap();
    let table = table_of(&owner);
    assert_eq!(mode(&table), 0o600);
    let refused =
        as_user(STRANGER, || (fs::File::open(&table).unwrap_err(), Client::connect(store.dir()).unwrap_err()));
    assert_eq!(refused.0.kind(), ErrorKind::PermissionDenied);
    assert!(!refused.1.is_no_daemon(), "{}", refused.1);
    closed.stop();

    let daemon = store.serve_with(&["--allow-uid", &STRANGER.to_string()]);
    let owner = Client::connect(store.dir()).unwrap();
    let owners = owner.namespace("docs").unwrap();
    set_mode(&table_of(&owner), 0o600);
    let guest = as_user(STRANGER, || Client::connect(store.dir()).unwrap());
    let guests = guest.namespace("docs").unwrap();
    for n in 0..20_u64 {
        owners.put("k", &n).unwrap();
        for _ in 0..3 {
            assert_eq!(guests.get::<u64>("k").unwrap(), Some(n));
            assert_eq!(guests.get_many::<u64>(&["k", "none"]).unwrap(), [Some(n), None]);
        }
    }
    let stats = guest.cache_stats();
    assert!(!stats.on && stats.hits == 0, "{stats:?}");
    daemon.stop();
}

#[test]
fn a_socket_that_another_user_put_there_is_refused_before_anything_is_sent() {
    if !can_be_others("a daemon of another user at an owner's store") {
        return;
    }
    let store = Store::new();
    let_all_through(&store);
    let binary = reachable_binary(&store);
    let own = store.dir().join(".commonhold");
    fs::create_dir(&own).unwrap();
    set_mode(&own, 0o777);
    let socket = own.join("socket");
    // Who listens is whoever has called listen, so the thread does.
    let listener = as_user(STRANGER, || UnixListener::bind(&socket).unwrap());
    set_mode(&socket, 0o666);
    let heard_nothing = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"", "something was sent");
    };
    for owner in [0, ANOTHER] {
        // Root's store and root's client; then those of a third user.
        chown(store.dir(), Some(owner), None).unwrap();
        let put = ["put", "s", "secret", "1"];
        let refused = run_as(owner, &binary, store.dir(), &put);
        refused.refused(4, &[&format!("belongs to user {STRANGER}"), &format!("user {owner}"), "nothing was sent"]);
        heard_nothing();
    }
    // Whose store it is may serve it, to root too.
    drop(listener);
    fs::remove_dir_all(&own).unwrap();
    chown(store.dir(), Some(STRANGER), Some(STRANGER)).unwrap();
    let mut command = Command::new(&binary);
    command.uid(STRANGER).gid(STRANGER).current_dir("/").arg("serve").arg(store.dir());
    let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the stranger's daemon answers root", || (store.run(&["status"]).code == 0).then_some(()));
    store.ok(&["put", "s", "a", "1"]);
    store.ok(&["stop"]);
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn those_who_may_not_come_in_cannot_keep_others_out() {
    const MANY: usize = 300;
    /// `MOST_STRANGERS` of the daemon.
    const HEARD: usize = 16;
    if !can_be_others("a flood of connections by another user") {
        return;
    }
    let store = Store::new();
    let_all_through(&store);
    let binary = reachable_binary(&store);
    let daemon = store.serve_with(&["--allow-uid", "1"]);
    let shared = store.dir().join(".commonhold-shared/socket");
    wait_for("the socket for others is open to them", || {
        fs::metadata(&shared).is_ok_and(|found| found.mode() & 0o777 == 0o666).then_some(())
    });
    let flood: Vec<UnixStream> =
        as_user(STRANGER, || (0..MANY).map(|_| UnixStream::connect(&shared).unwrap()).collect());
    let hung_up = |stream: &UnixStream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&*stream).read(&mut [0]), Ok(0))
    };
    wait_for("all but a few are hung up on", || {
        (flood.iter().filter(|stream| hung_up(stream)).count() >= MANY - HEARD).then_some(())
    });
    assert_eq!(store.run(&["put", "s", "a", "1"]).code, 0);
    drop(flood);
    wait_for("there is room to be refused in words", || {
        let refused = run_as(STRANGER, &binary, store.dir(), &["get", "s", "a"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        refused.stderr.contains("may not use this store").then_some(())
    });
    daemon.stop();
}

// --- Links.

const SECRET: &str = "CANARY-5d2c1f";

/// Something that is not the store's: a file and a directory with one in it. Nothing may touch it, nothing may read it.
struct Canary {
    root: PathBuf,
    as_it_was: Vec<(PathBuf, Vec<u8>, u32, i64, i64)>,
}

impl Canary {
    fn new(root: PathBuf) -> Self {
        fs::create_dir_all(root.join("dir")).unwrap();
        for name in ["file", "dir/kv_store_s.json", "dir/00000001.log", "dir/owner.lock"] {
            // A daemon that took it for its own would not stumble: it is a whole namespace.
            fs::write(root.join(name), format!("{{\"canary\": {{\"secret\": \"{SECRET}\"}}}}\n")).unwrap();
            set_mode(&root.join(name), 0o604);
        }
        let as_it_was = Self::look(&root);
        Self { root, as_it_was }
    }

    fn file(&self) -> PathBuf {
        self.root.join("file")
    }

    fn dir(&self) -> PathBuf {
        self.root.join("dir")
    }

    fn look(root: &Path) -> Vec<(PathBuf, Vec<u8>, u32, i64, i64)> {
        let mut seen: Vec<_> = all_below(root)
            .into_iter()
            .map(|path| {
                let found = fs::symlink_metadata(&path).unwrap();
                let bytes = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                (path, bytes, found.mode(), found.mtime(), found.mtime_nsec())
            })
            .collect();
        seen.sort();
        seen
    }

    #[track_caller]
    fn is_untouched(&self, case: &str) {
        assert_eq!(Self::look(&self.root), self.as_it_was, "{case}: what is not the store's was touched");
    }

    /// No file of the store has it; those are not looked at that are the canary itself.
    #[track_caller]
    fn was_not_read(&self, store: &Path, case: &str) {
        let own = fs::metadata(self.file()).unwrap().ino();
        for path in all_below(store) {
            let found = fs::symlink_metadata(&path).unwrap();
            if found.is_file() && found.ino() != own {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                assert!(!text.contains(SECRET), "{case}: it was read into {}", path.display());
            }
        }
    }
}

/// A store with some of everything, not served: two namespaces, a workspace, kept files.
fn store_with_a_past() -> Store {
    let store = Store::new();
    let daemon = store.serve();
    for n in ["1", "2"] {
        store.ok(&["put", "s", "a", n]);
        store.ok(&["--workspace", "w", "put", "s", "a", n]);
        store.ok(&["flush"]);
    }
    store.ok(&["put", "s", "b", "1"]);
    daemon.kill();
    store
}

/// Starts, works and ends, whatever of it is refused. What was read is not to hold the canary.
fn work(store: &Store, case: &str) -> Vec<Ran> {
    let log = store.beside("work.log");
    let daemon = Daemon::spawn(store.dir(), &log, &["--flush-lock-timeout", "300ms"]);
    let serves = wait_for(case, || {
        let code = store.run(&["status"]).code;
        let ended = fs::metadata(format!("/proc/{}/fd/0", daemon.pid())).is_err();
        (code == 0 || ended).then_some(code == 0)
    });
    let mut done = Vec::new();
    if serves {
        for arguments in [
            &["put", "s", "c", "1"][..],
            &["--workspace", "w", "put", "s", "c", "1"],
            &["get", "s", "canary"],
            &["--workspace", "w", "get", "s", "canary"],
            &["flush"],
            &["put", "s", "d", "1"],
            &["flush"],
            &["stop"],
        ] {
            done.push(store.run(arguments));
        }
    }
    drop(daemon);
    for arguments in [&["check", "--deep"][..], &["export", "s", "-"], &["--workspace", "w", "export", "s", "-"]] {
        done.push(store.run(arguments));
    }
    done
}

fn links_are_not_followed(
    names: &[&str],
    target: fn(&Canary) -> PathBuf,
    plant: fn(&Path, &Path),
    may_be_read: &[&str],
) {
    for name in names {
        let store = store_with_a_past();
        let canary = Canary::new(store.beside("canary"));
        let path = store.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            let _ = fs::remove_file(&path);
        }
        plant(&target(&canary), &path);
        for ran in work(&store, name) {
            assert!(ran.code != -1 && !ran.stderr.contains("panicked"), "{name}: {ran:?}");
            assert!(!ran.stdout.contains(SECRET) || may_be_read.contains(name), "{name}: it was read: {ran:?}");
        }
        canary.is_untouched(name);
        if !may_be_read.contains(name) {
            canary.was_not_read(store.dir(), name);
        }
    }
}

/// Every file that a store has or may come to have.
const FILES: &[&str] = &[
    ".commonhold/owner.lock",
    ".commonhold/socket",
    ".commonhold/files.json",
    ".commonhold/files.json.new",
    ".commonhold/daemon.log",
    ".commonhold/flush/@/s.lock",
    ".commonhold/journal/00000001.log",
    ".commonhold/journal/00000002.log",
    ".commonhold/journal/00000002.log.new",
    ".commonhold/journal/spare.log.new",
    ".commonhold/quarantine/@/s.records",
    ".commonhold/quarantine/@/s.records.new",
    "kv_store_s.json",
    "w/kv_store_s.json",
    "kv_store_s.json.tmp.1.2.3",
];

#[test]
fn symbolic_links_in_the_place_of_files_are_not_followed() {
    links_are_not_followed(FILES, Canary::file, |target, path| symlink(target, path).unwrap(), &[]);
}

#[test]
fn files_with_another_name_elsewhere_are_not_written_into() {
    // Whoever gives a file of the store a second name gives it to the store: it may be read, and is not written into.
    links_are_not_followed(FILES, Canary::file, |target, path| fs::hard_link(target, path).unwrap(), FILES);
}

#[test]
fn symbolic_links_in_the_place_of_directories_are_not_followed() {
    let names = [
        ".commonhold",
        ".commonhold/journal",
        ".commonhold/journal/aside",
        ".commonhold/flush",
        ".commonhold/flush/@",
        ".commonhold/generations",
        ".commonhold/generations/@",
        ".commonhold/quarantine",
        ".commonhold/quarantine/@",
        "w",
    ];
    links_are_not_followed(&names, Canary::dir, |target, path| symlink(target, path).unwrap(), &[]);
}

#[test]
fn a_link_in_a_files_place_is_refused_in_words() {
    let store = store_with_a_past();
    let canary = Canary::new(store.beside("canary"));
    let own = store.dir().join(".commonhold");
    let swap = |name: &str, plant: &dyn Fn(&Path)| {
        let (path, kept) = (own.join(name), store.beside("kept"));
        let _ = fs::rename(&path, &kept);
        plant(&path);
        let (code, words) = refused_start(&store);
        fs::remove_file(&path).unwrap();
        let _ = fs::rename(&kept, &path);
        fs::remove_file(store.beside("refused.log")).unwrap();
        (code, words)
    };
    let to_file = |path: &Path| symlink(canary.file(), path).unwrap();
    let to_dir = |path: &Path| symlink(canary.dir(), path).unwrap();
    let (code, words) = swap("owner.lock", &to_file);
    assert!(code == 4 && words.contains("is a symbolic link to"), "{code}: {words}");
    let (code, words) = swap("owner.lock", &|path| fs::hard_link(canary.file(), path).unwrap());
    assert!(code == 4 && words.contains("has 2 names"), "{code}: {words}");
    let (code, words) = swap("socket", &to_file);
    assert!(code != 0 && words.contains("is not a socket and was left as it is"), "{code}: {words}");
    let (code, words) = swap("generations", &to_dir);
    assert!(code != 0 && words.contains("a link is not followed"), "{code}: {words}");
    canary.is_untouched("refused");
    // All is as before, and the store starts.
    let daemon = store.serve();
    assert_eq!(store.ok(&["get", "s", "b"]), "1\n");
    daemon.stop();
}

/// A link that is put there and taken away again, faster than any look and the use after it are apart: whatever the daemon
/// answers, it opens nothing through it.
#[test]
fn links_that_come_and_go_while_the_daemon_works_lead_nowhere() {
    const LASTS: Duration = Duration::from_secs(4);
    let began = Instant::now();
    let (mut rounds, mut swaps) = (0, 0_u64);
    while began.elapsed() < LASTS {
        let store = store_with_a_past();
        let canary = Canary::new(store.beside("canary"));
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                let spare = store.beside("spare-link");
                let mut swapped = 0;
                while !over.load(Ordering::Relaxed) {
                    for name in FILES.iter().filter(|name| !name.ends_with("00000001.log")) {
                        let path = store.dir().join(name);
                        let made = if swapped % 3 == 0 && !name.contains("kv_store") {
                            fs::hard_link(canary.file(), &spare)
                        } else {
                            symlink(canary.file(), &spare)
                        };
                        // Any of it may fail: the daemon makes and removes the same names meanwhile.
                        let _ = made.and_then(|()| fs::rename(&spare, &path));
                        if swapped % 2 == 0 {
                            let _ = fs::remove_file(&path);
                        }
                        swapped += 1;
                    }
                }
                swapped
            });
            for ran in work(&store, "links that come and go") {
                assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains("panicked"), "{ran:?}");
            }
            over.store(true, Ordering::Relaxed);
            swaps += swapping.join().unwrap();
        });
        let _ = fs::remove_file(store.beside("spare-link"));
        canary.is_untouched("links that come and go");
        canary.was_not_read(store.dir(), "links that come and go");
        rounds += 1;
    }
    println!("{swaps} links came and went in {rounds} rounds");
    assert!(swaps > 1_000, "{swaps} are too few to meet anything");
}
