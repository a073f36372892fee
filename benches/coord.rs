//! What coordination costs: a lock beside two reads, a write with one and with many update flags, and how much of a
//! processor the daemon takes while many wait.
//!
//! `cargo bench --bench coord`. Figures are medians over rounds that take turns; what counts is the ratio.

use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use commonhold::blocking::{Client, ConnectOptions, LockGuard, UpdateFlag};

const ROUNDS: usize = 21;
const CALLS_A_ROUND: u32 = 300;
const FLAG_SESSIONS: usize = 2_000;
const WAITERS: usize = 1_000;
/// What `/proc` counts in, on every Linux.
const TICKS_A_SECOND: u64 = 100;
const WATCHED: Duration = Duration::from_secs(2);

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    // Two descriptors a client.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("a process may have what it may have");
    let daemon = Daemon::start(directory.path());
    // What is compared are requests: a `get` that the near cache answers is none.
    let asking = || ConnectOptions::new().cache_bytes(0);
    let connect = || Client::connect_with(directory.path(), asking()).expect("the daemon serves");
    locks(&connect());
    flags(connect);
    waiters(&daemon, connect);
}

struct Daemon(Child);

impl Daemon {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_commonhold"));
        command.args(["serve", "--announce"]).arg(directory).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the daemon starts");
        let mut word = String::new();
        let stdout = child.stdout.as_mut().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut word).expect("it says a word");
        assert_eq!(word.trim(), "ready");
        Self(child)
    }

    /// The processor time that it has taken.
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("Linux tells");
        let (_, fields) = stat.rsplit_once(')').expect("a command in parentheses");
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It is gone after this either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The time of one call.
fn timed(mut call: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..CALLS_A_ROUND {
        call();
    }
    began.elapsed() / CALLS_A_ROUND
}

/// The medians of two things that take turns.
fn in_turns(mut one: impl FnMut(), mut other: impl FnMut()) -> [Duration; 2] {
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        times[0].push(timed(&mut one));
        times[1].push(timed(&mut other));
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    })
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn locks(client: &Client) {
    let records = client.namespace("n").expect("a name");
    records.put("k", &"x".repeat(100)).expect("a put");
    let lock = client.lock(["k"]);
    let two_gets = || {
        for _ in 0..2 {
            black_box(records.get_raw("k").expect("a get"));
        }
    };
    let [locked, read] = in_turns(|| lock.acquire().expect("it is free").release().expect("it is held"), two_gets);
    println!(
        "lock + release                 {locked:>10.1?}   two gets {read:.1?}   ratio {:.2} (goal 1)",
        ratio(locked, read)
    );
    let [dropped, read] = in_turns(|| drop(client.lock(["k"]).acquire().expect("it is free")), two_gets);
    println!(
        "lock + drop of the guard       {dropped:>10.1?}   two gets {read:.1?}   ratio {:.2}",
        ratio(dropped, read)
    );
}

fn flags(connect: impl Fn() -> Client) {
    let client = connect();
    let (few, many) = (client.namespace("few").expect("a name"), client.namespace("many").expect("a name"));
    let _one = few.update_flag().expect("a flag");
    let flags: Vec<UpdateFlag> = (0..FLAG_SESSIONS)
        .map(|_| connect().namespace("many").and_then(|many| many.update_flag()).expect("a flag"))
        .collect();
    let write = |namespace: &commonhold::blocking::Namespace| {
        black_box(namespace.put("k", &1).expect("a put"));
    };
    let [with_many, with_one] = in_turns(|| write(&many), || write(&few));
    println!(
        "write, {} flag sessions       {with_many:>10.1?}   with one {with_one:.1?}   ratio {:.2} (goal 1)",
        flags.len(),
        ratio(with_many, with_one)
    );
}

fn waiters(daemon: &Daemon, connect: impl Fn() -> Client + Sync) {
    let client = connect();
    let guard = client.lock(["crowded"]).acquire().expect("it is free");
    let clients: Vec<Client> = (0..WAITERS).map(|_| connect()).collect();
    std::thread::scope(|scope| {
        for client in &clients {
            let wait = || drop::<LockGuard>(client.lock(["crowded"]).acquire().expect("it comes to everybody"));
            std::thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, wait).expect("a thread");
        }
        let waiting = || client.locks().expect("a list").first().map_or(0, |lock| lock.waiters.len());
        while waiting() < WAITERS {
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = daemon.processor_time();
        std::thread::sleep(WATCHED);
        let taken = daemon.processor_time().saturating_sub(before);
        println!("daemon with {WAITERS} waiters          {taken:>10.1?}   of processor time in {WATCHED:.1?} (goal 0)");
        drop(guard);
    });
    // The scope ends when all of them have had it.
    let began = Instant::now();
    client.lock(["crowded"]).acquire().expect("nobody is left").release().expect("it is held");
    println!("and after all of them          {:>10.1?}   for one more lock", began.elapsed());
}
