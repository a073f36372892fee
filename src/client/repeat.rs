//! How a request that may have been done says so when it is sent again: its frame is made anew, which is needed only when a
//! connection was lost.

use commonhold_proto::{Earlier, EncodeError, Fault, Request, Verb, codec, frame};

use super::error::Error;

/// Since this version of the wire the daemon looks at numbers.
pub(super) const NUMBERS_COUNT_SINCE: u16 = 3;

/// Makes the frame of a write or a drop say that it was sent before.
pub(super) fn with_earlier(bytes: &mut Vec<u8>, earlier: Earlier) -> Result<(), EncodeError> {
    changed(bytes, |verb| match verb {
        Verb::Write(write) => Verb::WriteAgain { earlier, write },
        Verb::DropOnce { space, client, number, settled, .. } => {
            Verb::DropOnce { space, client, number, settled, earlier: Some(earlier) }
        }
        verb => verb,
    })
}

/// Makes the frame of a drop one that daemons of earlier versions know, too.
pub(super) fn without_number(bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    changed(bytes, |verb| match verb {
        Verb::DropOnce { space, .. } => Verb::Drop { space },
        verb => verb,
    })
}

/// Makes the frame of a request tell this deadline.
pub(super) fn with_deadline(bytes: &mut Vec<u8>, deadline_ms: u32) -> Result<(), EncodeError> {
    made_anew(bytes, |request| Request { deadline_ms, ..request })
}

fn changed(bytes: &mut Vec<u8>, change: impl for<'a> FnOnce(Verb<'a>) -> Verb<'a>) -> Result<(), EncodeError> {
    made_anew(bytes, |Request { deadline_ms, verb }| Request { deadline_ms, verb: change(verb) })
}

fn made_anew(bytes: &mut Vec<u8>, change: impl for<'a> FnOnce(Request<'a>) -> Request<'a>) -> Result<(), EncodeError> {
    let mut anew = Vec::with_capacity(bytes.len() + 32);
    if let Ok(Some((header, body, _))) = frame::split(bytes)
        && let Ok(request) = codec::decode_request(body)
    {
        codec::encode_request(&mut anew, header.id, &change(request))?;
        *bytes = anew;
    }
    Ok(())
}

/// What the caller of a repeated request is told where the daemon's fault says nothing about the first sending.
pub(super) fn leaves_unknown(fault: &Fault) -> Option<Error> {
    match fault {
        Fault::TimedOut { .. } | Fault::Cancelled | Fault::Loading { .. } => {
            Some(Error::unknown(format!("the connection was lost, and when it was sent again: {fault}")))
        }
        _ => None,
    }
}
