//! What the main operations cost beside the floor that the machine sets: a bare ping-pong over the same kind of socket,
//! a bare write of the same bytes. Every figure is the median over rounds that take turns, and what counts is the ratio.
//!
//! `cargo bench --bench speed` measures on all processors, where the kernel's choice of who runs where is most of what is
//! seen; `-- --pin` puts everything on the first one, `-- --split` the bench on the first and its peers on the second.
//! `-- --near` measures only what asks nobody: hits of the near cache, and looks at an update flag.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonhold::blocking::{Batch, Client, ConnectOptions, Namespace};
use commonhold::engine::{FlushHow, Store, StoreOptions, Surroundings, WriteRequest};
use commonhold::proto::{Condition, Place};

const VALUE_BYTES: usize = 830;
const RECORDS_A_REQUEST: usize = 1_000;
const ROUNDS: usize = 15;
/// About what a `get` and its answer, and an upsert and its, weigh on the socket.
const SMALL: usize = 72;
const LARGE: usize = 900;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, socket, file] = &arguments[..]
        && role == "echo"
    {
        return echo(Path::new(socket), Path::new(file));
    }
    let asked = |option: &str| arguments.iter().any(|argument| argument == option);
    // Children keep the processor that was set when they were started.
    let placement = match (asked("--pin"), asked("--split")) {
        (true, _) => Placement { words: "all on one processor", peers: Some(0), own: Some(0) },
        (_, true) => {
            Placement { words: "the bench on one processor, its peers on another", peers: Some(1), own: Some(0) }
        }
        _ => Placement { words: "on all processors", peers: None, own: None },
    };
    println!("{}, values of {VALUE_BYTES} bytes", placement.words);
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    if asked("--near") {
        return from_the_near_cache(directory.path(), &placement);
    }
    over_the_socket(directory.path(), &placement);
    in_the_engine(directory.path());
}

/// Which processor runs what; none where the kernel may choose.
struct Placement {
    words: &'static str,
    peers: Option<usize>,
    own: Option<usize>,
}

fn stay_on(processor: Option<usize>) {
    if let Some(processor) = processor {
        let mut one = rustix::thread::CpuSet::new();
        one.set(processor);
        rustix::thread::sched_setaffinity(None, &one).expect("the processor can be asked for");
    }
}

/// A peer that answers [`LARGE`] bytes to [`SMALL`], and the other way round after a bare write of what came.
fn echo(socket: &Path, file: &Path) {
    let listener = UnixListener::bind(socket).expect("the socket can be bound");
    let file = File::create(file).expect("the file can be made");
    let (mut stream, _) = listener.accept().expect("the bench connects");
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    while let Ok(got @ 1..) = stream.read(&mut buffer) {
        let answer = if got == LARGE {
            file.write_all_at(&buffer[..got], offset).expect("the write is done");
            offset += got as u64;
            SMALL
        } else {
            LARGE
        };
        if stream.write_all(&buffer[..answer]).is_err() {
            return;
        }
    }
}

/// A child that goes with the bench.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut tried: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(done) = tried() {
            return done;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn over_the_socket(directory: &Path, placement: &Placement) {
    stay_on(placement.peers);
    let (socket, file) = (directory.join("echo.sock"), directory.join("echo.data"));
    let own = std::env::current_exe().expect("the bench knows its own file");
    let _echo = Helper(Command::new(own).arg("echo").args([&socket, &file]).spawn().expect("the peer starts"));
    let mut bare = until("the bare peer", || UnixStream::connect(&socket).ok());
    let (_daemon, store) = daemon(directory);
    stay_on(placement.own);
    let asking = ConnectOptions::new().cache_bytes(0);
    let client = until("the daemon", || asking.clone().connect(&store).ok());
    let space = client.namespace("bench").expect("the name is valid");
    let value = value_text(0);
    space.put_raw("key-0000000000", &value).expect("the put is done");

    const TURNS: usize = 2_000;
    let ping_small = |bare: &mut UnixStream| ping(bare, SMALL, LARGE);
    let ping_large = |bare: &mut UnixStream| ping(bare, LARGE, SMALL);
    let (mut pings, mut gets, mut writes, mut upserts) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        pings.push(timed(TURNS, || ping_small(&mut bare)));
        gets.push(timed(TURNS, || drop(black_box(space.get_raw("key-0000000000").expect("the get is answered")))));
        writes.push(timed(TURNS, || ping_large(&mut bare)));
        upserts.push(timed(TURNS, || {
            black_box(space.put_raw("key-0000000000", &value).expect("the put is done"));
        }));
    }
    report("get", &gets, "bare ping-pong", &pings);
    report("buffered upsert", &upserts, "ping-pong + bare write", &writes);
    batches(&space, &file.with_extension("batch"));
}

/// A daemon, and its store below `directory`.
fn daemon(directory: &Path) -> (Helper, std::path::PathBuf) {
    let store = directory.join("store");
    std::fs::create_dir(&store).expect("a directory can be made");
    let daemon = Command::new(env!("CARGO_BIN_EXE_commonhold"))
        .args(["--quiet", "serve"])
        .arg(&store)
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    (Helper(daemon), store)
}

/// What asks nobody: a value that is read again, out of as many as stay hot, and one's own update flag.
fn from_the_near_cache(directory: &Path, placement: &Placement) {
    const HOT: usize = 10_000;
    stay_on(placement.peers);
    let (_daemon, store) = daemon(directory);
    stay_on(placement.own);
    let client = until("the daemon", || Client::connect(&store).ok());
    let space = client.namespace("bench").expect("the name is valid");
    let (value, keys) = (value_text(0), (0..HOT).map(|key| format!("key-{key:010}")).collect::<Vec<_>>());
    for some in keys.chunks(RECORDS_A_REQUEST) {
        let put = |batch: Batch, key: &String| batch.put_raw(&space, key, &value).expect("the value is JSON");
        client.write(&some.iter().fold(Batch::new(), put)).expect("the batch is done");
    }
    let flag = space.update_flag().expect("the flag is registered");
    let one = &keys[..1];
    let read = |keys: &[String]| {
        let mut next = keys.iter().cycle();
        timed(10 * HOT, || drop(black_box(space.get_raw(next.next().expect("a cycle")).expect("it is kept"))))
    };
    read(&keys);
    let before = client.cache_stats();
    let (mut hot, mut hottest, mut looks) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        hot.push(read(&keys));
        hottest.push(read(one));
        looks.push(timed(10 * HOT, || assert!(!black_box(flag.is_set().expect("nothing is sent")))));
    }
    assert_eq!(client.cache_stats().misses, before.misses, "every read was a hit");
    println!("near-cache hit: {:?} of {HOT} hot keys, {:?} of one", median(&hot), median(&hottest));
    println!("look at one's own update flag: {:?}", median(&looks));
}

fn ping(bare: &mut UnixStream, out: usize, back: usize) {
    let mut buffer = [0; LARGE];
    bare.write_all(&buffer[..out]).expect("the peer reads");
    bare.read_exact(&mut buffer[..back]).expect("the peer answers");
}

fn batches(space: &Namespace, file: &Path) {
    let file = File::create(file).expect("the file can be made");
    let bytes = vec![b'x'; RECORDS_A_REQUEST * (VALUE_BYTES + 14)];
    let (mut ours, mut bare) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let keys: Vec<String> = (0..RECORDS_A_REQUEST).map(|key| format!("b{round:03}-{key:09}")).collect();
        let value = value_text(round);
        let mut batch = Batch::new();
        for key in &keys {
            batch = batch.put_raw(space, key, &value).expect("the value is JSON");
        }
        ours.push(timed(1, || {
            black_box(space.client().write(&batch).expect("the batch is done"));
        }));
        bare.push(timed(1, || file.write_all_at(&bytes, (round * bytes.len()) as u64).expect("the write is done")));
    }
    report("1,000 records in a request", &ours, "bare write of their bytes", &bare);
    let a_second = Duration::from_secs(1).as_nanos() / (median(&ours) / RECORDS_A_REQUEST as u32).as_nanos();
    println!("    {a_second} records a second");
}

fn value_text(salt: usize) -> String {
    let mut text = format!("{{\"content\":\"{salt} ");
    while text.len() < VALUE_BYTES - 2 {
        text.push_str("the wind bloweth where it listeth ");
    }
    text.truncate(VALUE_BYTES - 2);
    text.push_str("\"}");
    text
}

fn in_the_engine(directory: &Path) {
    let (mut small, mut large) = (vec![], vec![]);
    let stores: Vec<_> =
        [1_000, 1_000_000].map(|records| filled(&directory.join(format!("s{records}")), records)).into();
    for _ in 0..ROUNDS {
        small.push(commit_after_one_change(&stores[0]));
        large.push(commit_after_one_change(&stores[1]));
    }
    report("commit after one change, 1M records", &large, "1k records", &small);
    let place = Place::new("", "bench").expect("the name is valid");
    stores[1].flush(&place, FlushHow::default()).expect("the flush is done");
    drop(stores);
    let path = directory.join("s1000000");
    let bytes = std::fs::metadata(path.join("kv_store_bench.json")).expect("it was flushed").len();
    let mut loads = vec![];
    for _ in 0..3 {
        let store = open(&path);
        let mut table = None;
        loads.push(timed(1, || table = Some(store.find("", "bench").expect("the namespace loads"))));
        assert_eq!(table.map(|table| table.len()), Some(1_000_000));
    }
    let speed = u128::from(bytes) / median(&loads).as_micros();
    println!("load of 1M records: {} MB at {speed} MB/s", bytes / 1_000_000);
}

fn open(path: &Path) -> Arc<Store> {
    let around = Surroundings::real().expect("the system gives random bytes");
    Arc::new(Store::open(path, StoreOptions::default(), around).expect("the store opens"))
}

fn filled(path: &Path, records: usize) -> Arc<Store> {
    std::fs::create_dir(path).expect("a directory can be made");
    let store = open(path);
    let table = store.find("", "bench").expect("the namespace opens");
    let value = value_text(1);
    for first in (0..records).step_by(1_000) {
        let mut request = WriteRequest::new(1, first as u64);
        for key in first..first + 1_000 {
            request.put(&table, &format!("key-{key:010}"), &value, Condition::Always).expect("is JSON");
        }
        store.write(vec![request]).pop().expect("one result").expect("the write is done");
    }
    let place = Place::new("", "bench").expect("the name is valid");
    store.flush(&place, FlushHow::default()).expect("the flush is done");
    store
}

fn commit_after_one_change(store: &Store) -> Duration {
    let table = store.find("", "bench").expect("the namespace is open");
    let value = value_text(2);
    timed(1, || {
        let mut request = WriteRequest::new(1, 1);
        request.put(&table, "key-0000000007", &value, Condition::Always).expect("is JSON");
        store.write(vec![request]).pop().expect("one result").expect("the write is done");
        store.sync_through(store.applied()).expect("the sync is done");
    })
}

/// The time of one turn of `work`, on average over `turns`.
fn timed(turns: usize, mut work: impl FnMut()) -> Duration {
    let started = Instant::now();
    for _ in 0..turns {
        work();
    }
    started.elapsed() / turns as u32
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn report(ours: &str, times: &[Duration], floor: &str, floors: &[Duration]) {
    let ratio = median(times).as_secs_f64() / median(floors).as_secs_f64();
    println!("{ours}: {:?}, {floor}: {:?}, ratio {ratio:.2}", median(times), median(floors));
}
