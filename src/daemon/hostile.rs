//! What those need who feed a daemon any bytes: [`fuzzing`](crate::fuzzing), which cannot see inside.

use std::time::Duration;

use crate::proto::frame::{FrameError, FrameHeader};

use super::inbox::{Inbox, TASK_BYTES, THREAD_BYTES};
use super::large::LargeFrames;
use super::running::Daemon;

/// Ends the sessions that only hold what they have for as long as their process lives, as the end of the process would.
pub(crate) fn end_held(daemon: &Daemon) {
    for guest in daemon.guests() {
        if guest.outbox.is_held() {
            guest.outbox.close();
        }
    }
}

/// Gives a read buffer a stream in pieces, the `n`-th of at most `length(n)` bytes, and hands each whole frame to `each`;
/// says what is wrong with what follows them. Every other buffer begins as that of a session that shares its thread, and
/// every third frame is taken out.
pub(crate) fn frames_in_pieces(
    stream: &[u8],
    length: impl Fn(usize) -> usize,
    mut each: impl FnMut(FrameHeader, &[u8]),
) -> Option<FrameError> {
    let initial = if stream.len().is_multiple_of(2) { THREAD_BYTES } else { TASK_BYTES };
    let mut inbox = Inbox::new(LargeFrames::new(Duration::from_mins(1)), initial);
    let (mut rest, mut pieces, mut frames) = (stream, 0, 0);
    loop {
        loop {
            let (header, body) = match inbox.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => return Some(error),
            };
            frames += 1;
            if frames % 3 == 0 {
                each(header, inbox.take(body).bytes());
            } else {
                each(header, inbox.body(body.clone()));
                inbox.pass(&body);
            }
        }
        if rest.is_empty() {
            return None;
        }
        let mut piece = &rest[..rest.len().min(length(pieces))];
        let whole = piece.len();
        inbox.fill(&mut piece).expect("a slice can be read");
        rest = &rest[whole - piece.len()..];
        pieces += 1;
        inbox.rest();
    }
}
