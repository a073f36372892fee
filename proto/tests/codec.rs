//! What the codec promises for bytes that are wrong: a refusal that says why, and a session that can go on.

mod common;

use common::{Message, samples};
use commonhold_proto::limits::{MAX_FRAME_BYTES, MAX_OPERATIONS};
use commonhold_proto::{
    Answer, Condition, DecodeError, EncodeError, FRAME_HEADER_BYTES, Fault, Kind, Op, Request, Seq, Space, Verb, Write,
    codec, frame,
};

const SPACE: Space<'static> = Space { kind: Kind::Persistent, workspace: "", namespace: "n" };

fn request(verb: Verb<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode_request(&mut out, 1, &Request { deadline_ms: 0, verb }).expect("it is small");
    out.split_off(FRAME_HEADER_BYTES)
}

fn write_of(ops: Vec<Op<'_>>) -> Verb<'_> {
    Verb::Write(Write { client: 1, number: 1, settled: 0, durability: None, if_token: None, spaces: vec![SPACE], ops })
}

fn malformed<T: std::fmt::Debug>(decoded: Result<T, DecodeError>) -> String {
    match decoded {
        Err(DecodeError::Malformed { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_after_a_message_are_refused() {
    for (name, message) in samples::messages() {
        let mut body = message.frame().split_off(FRAME_HEADER_BYTES);
        body.push(0);
        let reason = match message {
            Message::Request(..) => malformed(codec::decode_request(&body)),
            Message::Answer(..) | Message::Part(..) => malformed(codec::decode_answer(&body)),
            Message::Event(..) => malformed(codec::decode_event(&body)),
            Message::Cancel(_) => continue,
        };
        assert!(reason.contains("the rest belongs to nothing"), "{name}: {reason}");
    }
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for (name, message) in samples::messages() {
        let body = message.frame().split_off(FRAME_HEADER_BYTES);
        for end in 0..body.len() {
            let refused = match message {
                Message::Request(..) => codec::decode_request(&body[..end]).is_err(),
                Message::Answer(..) | Message::Part(..) => codec::decode_answer(&body[..end]).is_err(),
                Message::Event(..) => codec::decode_event(&body[..end]).is_err(),
                Message::Cancel(_) => continue,
            };
            assert!(refused, "{name} cut at byte {end}");
        }
    }
}

#[test]
fn an_unknown_verb_answer_or_event_is_unsupported_whatever_follows() {
    let unsupported = |what| DecodeError::Unsupported { what, tag: 1_000 };
    let tag = 1_000_u32.to_le_bytes();
    let body = [&[0; 4][..], &tag, b"fields of a later version"].concat();
    assert_eq!(codec::decode_request(&body), Err(unsupported("verb")));
    let body = [&tag[..], b"fields of a later version"].concat();
    assert_eq!(codec::decode_answer(&body), Err(unsupported("answer")));
    assert_eq!(codec::decode_event(&body), Err(unsupported("event")));
}

#[test]
fn the_first_tag_after_the_last_known_one_is_unsupported() {
    let tag = Verb::NAMES.len() as u32;
    let body = [&[0; 4][..], &tag.to_le_bytes()].concat();
    assert_eq!(codec::decode_request(&body), Err(DecodeError::Unsupported { what: "verb", tag }));
}

#[test]
fn an_unknown_operation_condition_kind_or_fault_is_unsupported_not_malformed() {
    let unsupported = |what| DecodeError::Unsupported { what, tag: 77 };
    let replaced = |body: &[u8], at: usize| {
        let mut body = body.to_vec();
        body[at..at + 4].copy_from_slice(&77_u32.to_le_bytes());
        body
    };
    // The last operation is the end of the body: Clear is tag and space, Delete ends with its condition.
    let clear = request(write_of(vec![Op::Clear { space: 0 }]));
    assert_eq!(codec::decode_request(&replaced(&clear, clear.len() - 8)), Err(unsupported("part of the request")));
    let delete = request(write_of(vec![Op::Delete { space: 0, key: "k", condition: Condition::IfAbsent }]));
    assert_eq!(codec::decode_request(&replaced(&delete, delete.len() - 4)), Err(unsupported("part of the request")));
    let len = request(Verb::Len { space: SPACE });
    assert_eq!(codec::decode_request(&replaced(&len, 8)), Err(unsupported("part of the request")));

    let mut fault = Vec::new();
    codec::encode_answer(&mut fault, 1, &Answer::Fault(Fault::Stopping)).unwrap();
    let fault = replaced(&fault[FRAME_HEADER_BYTES..], 4);
    assert_eq!(codec::decode_answer(&fault), Err(unsupported("part of the answer")));
}

#[test]
fn a_decode_error_as_a_fault_says_what_to_do() {
    let fault = Fault::from(DecodeError::Unsupported { what: "verb", tag: 40 });
    assert_eq!(
        fault.to_string(),
        "the daemon does not know verb number 40: it is older than this client. Nothing was done; restart the daemon \
         with the client's version"
    );
}

#[test]
fn truth_options_and_text_are_taken_strictly() {
    let flush = request(Verb::Flush { space: None, rewrite: false, wait: true });
    let with = |at: usize, byte| {
        let mut body = flush.clone();
        body[at] = byte;
        malformed(codec::decode_request(&body))
    };
    assert_eq!(with(8, 2), "an option begins with 2, not 0 or 1");
    assert_eq!(with(9, 2), "a truth value is 2, not 0 or 1");

    let mut get = request(Verb::Get { space: SPACE, key: "k" });
    *get.last_mut().unwrap() = 0xff;
    assert!(malformed(codec::decode_request(&get)).starts_with("a text is not UTF-8"));
}

#[test]
fn a_list_that_is_too_long_is_seen_to_be_so_and_kept_no_further() {
    for (count, kept) in [
        (MAX_OPERATIONS, MAX_OPERATIONS),
        (MAX_OPERATIONS + 1, MAX_OPERATIONS + 1),
        (MAX_OPERATIONS * 3, MAX_OPERATIONS + 1),
    ] {
        let body = request(Verb::FilterMissing { space: SPACE, keys: vec!["k"; count] });
        let Verb::FilterMissing { keys, .. } = codec::decode_request(&body).unwrap().verb else { panic!("a verb") };
        assert_eq!(keys.len(), kept);

        let body = request(write_of(vec![Op::Clear { space: 0 }; count]));
        let Verb::Write(write) = codec::decode_request(&body).unwrap().verb else { panic!("a verb") };
        assert_eq!(write.ops.len(), kept);
    }
}

#[test]
fn an_answer_is_never_cut_short_in_silence() {
    let answer = |count| {
        let mut out = Vec::new();
        codec::encode_answer(&mut out, 1, &Answer::Missing { keys: vec![0; count] }).unwrap();
        out.split_off(FRAME_HEADER_BYTES)
    };
    assert!(codec::decode_answer(&answer(MAX_OPERATIONS)).is_ok());
    let reason = malformed(codec::decode_answer(&answer(MAX_OPERATIONS + 1)));
    assert_eq!(reason, "invalid length 10001, expected a list of at most 10000 elements");
}

#[test]
fn the_largest_frame_travels_and_one_byte_more_is_refused_with_the_output_untouched() {
    let empty = Message::Answer(1, Answer::Status { json: "" }).frame().len();
    let room = MAX_FRAME_BYTES + 4 - empty;
    let text = "x".repeat(room + 1);
    let mut out = b"before".to_vec();

    assert_eq!(
        codec::encode_answer(&mut out, 1, &Answer::Status { json: &text }),
        Err(EncodeError::TooLarge { bytes: MAX_FRAME_BYTES as u64 + 1 })
    );
    assert_eq!(out, b"before");

    codec::encode_answer(&mut out, 1, &Answer::Status { json: &text[1..] }).unwrap();
    assert_eq!(&out[..6], b"before");
    let (_, body, _) = frame::split(&out[6..]).unwrap().unwrap();
    assert_eq!(codec::decode_answer(body), Ok(Answer::Status { json: &text[1..] }));
}

#[test]
fn what_is_far_too_large_is_told_by_its_true_size_and_not_built() {
    let value = "x".repeat(10 << 20);
    let op = Op::Put { space: 0, key: "k", value: &value, condition: Condition::IfSeq(Seq(1)) };
    let request = Request { deadline_ms: 0, verb: write_of(vec![op; 20]) };
    let mut out = Vec::new();
    let Err(EncodeError::TooLarge { bytes }) = codec::encode_request(&mut out, 1, &request) else {
        panic!("too large")
    };
    assert!(bytes > 200 << 20 && bytes < 201 << 20, "{bytes}");
    assert!(out.is_empty() && out.capacity() <= 2 * MAX_FRAME_BYTES);
}
