//! The codec: a body as every kind of message that it may be, and a hello.

use crate::proto::codec::{decode_answer, decode_event, decode_request, encode_answer, encode_event, encode_request};
use crate::proto::frame::FRAME_HEADER_BYTES;
use crate::proto::limits::MAX_OPERATIONS;
use crate::proto::{DecodeError, Fault, HELLO_BYTES, Hello, Request, Verb};

use super::meter;

/// Takes the bytes for the body of a frame.
///
/// # Panics
/// When a promise is broken.
pub fn message(body: &[u8]) {
    let (request, most) = meter::here(|| decode_request(body));
    // Keys and values are borrowed. What is owned is lists, of elements that take some bytes on the wire, too.
    within("a request", body, most, 64 * body.len() + (16 << 10));
    match request {
        Ok(request) if is_cut(&request) => {}
        Ok(request) => same("a request", body, |out| encode_request(out, 1, &request).is_ok()),
        Err(error) => explained(error),
    }
    let (answer, most) = meter::here(|| decode_answer(body));
    within("an answer", body, most, 128 * body.len() + (128 << 10));
    match answer {
        Ok(answer) => same("an answer", body, |out| encode_answer(out, 1, &answer).is_ok()),
        Err(error) => explained(error),
    }
    let (event, most) = meter::here(|| decode_event(body));
    within("an event", body, most, 128 * body.len() + (128 << 10));
    match event {
        Ok(event) => same("an event", body, |out| encode_event(out, &event).is_ok()),
        Err(error) => explained(error),
    }
    if let Some(hello) = body.first_chunk::<HELLO_BYTES>()
        && let Ok(read) = Hello::from_bytes(hello)
    {
        assert_eq!(read.to_bytes(), *hello, "a hello is written as it was read");
    }
}

fn within(what: &str, body: &[u8], most: usize, bound: usize) {
    assert!(most <= bound, "{} bytes as {what} took {most} bytes of memory", body.len());
}

/// There is one way to say a thing, so that no two readers understand a message differently.
fn same(what: &str, body: &[u8], encode: impl FnOnce(&mut Vec<u8>) -> bool) {
    let mut out = Vec::new();
    assert!(encode(&mut out), "{what} that came in a frame fits into one");
    assert_eq!(&out[FRAME_HEADER_BYTES..], body, "{what} is written as it was read");
}

fn explained(error: DecodeError) {
    let fault = Fault::from(error);
    assert!(matches!(fault, Fault::Malformed { .. } | Fault::Unsupported { .. }));
    assert!(!fault.to_string().is_empty());
}

/// Whether a list was longer than may be served, and was cut where that shows.
fn is_cut(request: &Request<'_>) -> bool {
    let longest = match &request.verb {
        Verb::GetMany { keys, .. } | Verb::FilterMissing { keys, .. } => keys.len(),
        Verb::Write(write) | Verb::WriteAgain { write, .. } => write.ops.len().max(write.spaces.len()),
        _ => 0,
    };
    assert!(longest <= MAX_OPERATIONS + 1, "{longest} elements were kept");
    longest > MAX_OPERATIONS
}
