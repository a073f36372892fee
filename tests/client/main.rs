//! What both clients promise, blocking and async, against a daemon that misbehaves as told (see [`fake`]), and what
//! opening and bulk loads do with a real one.

mod driver;
mod fake;
mod grants;
mod holds;
mod lost;
mod many;
mod near;
mod once;
mod pipeline;
mod real;
mod strange;
mod streams;

use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{ConnectOptions, Error, Seq};
use commonhold::proto::{Answer, Cursor, Entry, Found, codec};
use driver::{Driver, Records, promises};
use fake::{Connection, FakeDaemon, encoded};

const WRITTEN: Answer<'static> = Answer::Written { seq: Seq(9), new: 1, found: 0, surrogates_removed: 0 };

fn got(value: &str) -> Answer<'_> {
    Answer::Got { found: Some(Found { value, seq: Seq(1) }), tag: None }
}

/// Runs `daemon` on the first connection beside `client`, which connects with `options`.
fn with<D: Driver>(options: ConnectOptions, daemon: impl FnOnce(Connection) + Send, client: impl FnOnce(D)) {
    let fake = FakeDaemon::start();
    thread::scope(|scope| {
        scope.spawn(|| daemon(fake.accept(1)));
        client(D::connect_with(fake.dir(), options).unwrap());
    });
}

/// Answers every request until the client goes.
fn serve(mut connection: Connection, answer: impl Fn(&fake::Asked) -> Vec<u8>) {
    while let Some(asked) = connection.next() {
        connection.try_send(&answer(&asked));
    }
}

fn a_value_is_read_typed_and_raw<D: Driver>() {
    let daemon = |connection| serve(connection, |asked| encoded(asked.id, &got(r#"{"tokens":12,"x":1.10}"#)));
    with(ConnectOptions::new(), daemon, |client: D| {
        let chunks = client.namespace("chunks");
        let typed: serde_json::Value = chunks.get("a").unwrap().unwrap();
        assert_eq!(typed["tokens"], 12);
        let raw = chunks.get_raw("a").unwrap().unwrap();
        assert_eq!((raw.text(), raw.seq()), (r#"{"tokens":12,"x":1.10}"#, Seq(1)));
    });
}

fn what_serde_refuses_is_not_representable_typed_and_always_there_raw<D: Driver>() {
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let values = ["NaN", "[1,-Infinity]", &deep, "\"no number\""];
    let daemon = |connection| {
        serve(connection, |asked| encoded(asked.id, &got(values[asked.key.parse::<usize>().unwrap()])));
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let chunks = client.namespace("chunks");
        for (key, value) in values.iter().enumerate() {
            let key = key.to_string();
            let error = chunks.get::<u64>(&key).unwrap_err();
            assert!(matches!(error, Error::NotRepresentable { .. }), "{error}");
            assert!(error.to_string().ends_with("read it raw"), "{error}");
            assert_eq!(chunks.get_raw(&key).unwrap().unwrap().text(), *value);
        }
    });
}

fn an_answer_may_arrive_byte_by_byte<D: Driver>() {
    let daemon = |mut connection: Connection| {
        for _ in 0..2 {
            let asked = connection.request();
            for byte in encoded(asked.id, &got("[1,2,3]")) {
                connection.send(&[byte]);
            }
        }
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let chunks = client.namespace("chunks");
        for _ in 0..2 {
            assert_eq!(chunks.get::<Vec<u8>>("a").unwrap().unwrap(), [1, 2, 3]);
        }
    });
}

fn the_parts_of_a_long_answer_are_one_list<D: Driver>() {
    let daemon = |mut connection: Connection| {
        let found = |values: &[&'static str]| {
            let found = values.iter().map(|value| Some(Found { value, seq: Seq(1) })).chain([None]).collect();
            Answer::GotMany { found, tags: Vec::new() }
        };
        let id = connection.request().id;
        let mut bytes = Vec::new();
        codec::encode_part(&mut bytes, id, &found(&["1", "2"])).unwrap();
        codec::encode_part(&mut bytes, id, &found(&["3"])).unwrap();
        codec::encode_answer(&mut bytes, id, &found(&[])).unwrap();
        connection.send(&bytes);
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let chunks = client.namespace("chunks");
        let values = chunks.get_many::<u8>(&["a", "b", "c", "d", "e", "f"]).unwrap();
        assert_eq!(values, [Some(1), Some(2), None, Some(3), None, None]);
    });
}

fn a_scan_goes_on_through_an_empty_page_and_ends_without_a_cursor<D: Driver>() {
    let daemon = |connection| {
        serve(connection, |asked| {
            let entry = |key| Entry { key, seq: Seq(1), value: Some("1") };
            let next = |key| Some(Cursor { load: 1, ordinal: 1, key });
            let (entries, next) = match asked.key.as_str() {
                "" => (vec![entry("a"), entry("b")], next("b")),
                "b" => (Vec::new(), next("x")),
                _ => (vec![entry("y")], None),
            };
            encoded(asked.id, &Answer::Page { entries, next, seq: Seq(5) })
        });
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let chunks = client.namespace("chunks");
        let keys: Vec<_> = chunks.scan().map(|entry| entry.unwrap().key).collect();
        assert_eq!(keys, ["a", "b", "y"]);
    });
}

fn large_requests_and_answers_pass<D: Driver>() {
    let value = format!("\"{}\"", "x".repeat(8 << 20));
    let daemon = |connection| {
        serve(connection, |asked| match asked.write {
            Some(_) => {
                assert!(asked.bytes > 8 << 20);
                encoded(asked.id, &WRITTEN)
            }
            None => encoded(asked.id, &got(&value)),
        });
    };
    with(ConnectOptions::new(), daemon, |client: D| {
        let chunks = client.namespace("chunks");
        assert_eq!(chunks.put_raw("a", &value).unwrap().seq, Seq(9));
        assert!(chunks.get_raw("a").unwrap().unwrap().text() == value);
    });
}

fn a_slow_answer_times_out_and_is_dropped_when_it_comes<D: Driver>() {
    let daemon = |mut connection: Connection| {
        let late = connection.request();
        assert!((50..=100).contains(&late.deadline_ms), "{late:?}");
        let next = connection.request();
        connection.answer(late.id, &got("\"late\""));
        connection.answer(next.id, &got("\"in time\""));
        let write = connection.request();
        let last = connection.request();
        connection.answer(write.id, &WRITTEN);
        connection.answer(last.id, &got("\"last\""));
    };
    let options = ConnectOptions::new().timeout(Some(Duration::from_millis(100)));
    with(options, daemon, |client: D| {
        let chunks = client.namespace("chunks");
        let began = Instant::now();
        assert!(matches!(chunks.get::<String>("a"), Err(Error::TimedOut { .. })));
        assert!(began.elapsed() >= Duration::from_millis(100));
        assert_eq!(chunks.get::<String>("a").unwrap().unwrap(), "in time");
        let error = chunks.put("a", &1).unwrap_err();
        assert!(error.outcome_is_unknown(), "{error}");
        assert_eq!(chunks.get::<String>("a").unwrap().unwrap(), "last");
    });
}

promises! {
    a_value_is_read_typed_and_raw,
    what_serde_refuses_is_not_representable_typed_and_always_there_raw,
    an_answer_may_arrive_byte_by_byte,
    the_parts_of_a_long_answer_are_one_list,
    a_scan_goes_on_through_an_empty_page_and_ends_without_a_cursor,
    large_requests_and_answers_pass,
    a_slow_answer_times_out_and_is_dropped_when_it_comes,
}
