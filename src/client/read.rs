//! From a reply's frames to what the caller asked for.

use commonhold_proto::{
    Answer, Election, FlagInfo, Found, LockInfo, NamespaceInfo, Seq, SessionInfo, SlotInfo, Tag, WorkspaceInfo, codec,
};

use super::core::Reply;
use super::error::Error;
use super::near::Held;
use super::values::{Cursor, Dropped, Entry, Flushed, Page, Value, Written};

/// An answer in one frame. A fault is an error, and so is an answer that does not belong to the request.
fn one<T>(reply: &Reply, read: impl FnOnce(Answer<'_>) -> Option<T>) -> Result<T, Error> {
    let body = reply.single().ok_or_else(|| Error::protocol("it answered in parts what has none"))?;
    match codec::decode_answer(body)? {
        Answer::Fault(fault) => Err(Error::Fault(fault)),
        answer => read(answer).ok_or_else(other),
    }
}

/// An answer in any number of frames, whose lists continue each other. A fault at the end voids what came before it.
fn each(reply: &Reply, mut read: impl FnMut(Answer<'_>) -> Option<()>) -> Result<(), Error> {
    for body in reply.bodies() {
        match codec::decode_answer(body)? {
            Answer::Fault(fault) => return Err(Error::Fault(fault)),
            answer => read(answer).ok_or_else(other)?,
        }
    }
    Ok(())
}

fn other() -> Error {
    Error::protocol("its answer is of another kind than the request asks for")
}

pub(super) fn done(reply: &Reply) -> Result<(), Error> {
    one(reply, |answer| matches!(answer, Answer::Done).then_some(()))
}

/// Hands the value to `read` where it lies, so that one that is parsed at once is not copied.
pub(super) fn got<T>(reply: &Reply, read: impl FnOnce(&str, Seq) -> T) -> Result<Option<T>, Error> {
    one(reply, |answer| match answer {
        Answer::Got { found, .. } => Some(found.map(|found| read(found.value, found.seq))),
        _ => None,
    })
}

pub(super) fn got_many<T>(
    reply: &Reply,
    keys: usize,
    mut read: impl FnMut(usize, &str, Seq) -> T,
) -> Result<Vec<Option<T>>, Error> {
    let mut values = Vec::with_capacity(keys);
    each(reply, |answer| match answer {
        Answer::GotMany { found, .. } => {
            for found in found {
                let index = values.len();
                values.push(found.map(|found| read(index, found.value, found.seq)));
            }
            Some(())
        }
        _ => None,
    })?;
    check_count(values.len(), keys)?;
    Ok(values)
}

fn check_count(values: usize, keys: usize) -> Result<(), Error> {
    if values == keys {
        return Ok(());
    }
    Err(Error::protocol(format!("it answered {values} values for {keys} keys")))
}

/// The value, so that it can be kept, and by what it is current.
pub(super) fn got_to_keep(reply: &Reply, key: &str) -> Result<(Option<Held>, Option<Tag>), Error> {
    one(reply, |answer| match answer {
        Answer::Got { found, tag } => Some((found.map(|found| held(key, found)), tag)),
        _ => None,
    })
}

/// The same of several: as many tags as values, or none.
pub(super) fn got_many_to_keep(
    reply: &Reply,
    keys: &[impl AsRef<str>],
) -> Result<(Vec<Option<Held>>, Vec<Tag>), Error> {
    let (mut values, mut all_tags) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
    each(reply, |answer| match answer {
        Answer::GotMany { found, tags } => {
            for found in found {
                // More values than keys are refused below.
                let key = keys.get(values.len()).map_or("", AsRef::as_ref);
                values.push(found.map(|found| held(key, found)));
            }
            all_tags.extend(tags);
            Some(())
        }
        _ => None,
    })?;
    check_count(values.len(), keys.len())?;
    if all_tags.len() != keys.len() {
        all_tags.clear();
    }
    Ok((values, all_tags))
}

fn held(key: &str, found: Found<'_>) -> Held {
    Held::new(key, found.value, found.seq)
}

pub(super) fn missing(reply: &Reply, keys: usize) -> Result<Vec<usize>, Error> {
    let mut missing = Vec::new();
    each(reply, |answer| match answer {
        Answer::Missing { keys } => {
            missing.extend(keys.into_iter().map(|index| index as usize));
            Some(())
        }
        _ => None,
    })?;
    if missing.last().is_some_and(|&last| last >= keys) || !missing.is_sorted_by(|a, b| a < b) {
        return Err(Error::protocol("it answered indexes that are no indexes into the keys"));
    }
    Ok(missing)
}

pub(super) fn contains(reply: &Reply) -> Result<bool, Error> {
    one(reply, |answer| match answer {
        Answer::Contains { found } => Some(found),
        _ => None,
    })
}

pub(super) fn len(reply: &Reply) -> Result<u64, Error> {
    one(reply, |answer| match answer {
        Answer::Len { records } => Some(records),
        _ => None,
    })
}

pub(super) fn page(reply: &Reply) -> Result<Page, Error> {
    one(reply, |answer| match answer {
        Answer::Page { entries, next, seq } => {
            Some(Page { entries: entries.iter().map(own).collect(), next: next.map(Cursor::from_wire), seq })
        }
        _ => None,
    })
}

/// A part of the answer to `get_all`, or its end.
pub(super) fn records(body: &[u8]) -> Result<(Vec<Entry>, Seq), Error> {
    match codec::decode_answer(body)? {
        Answer::Fault(fault) => Err(Error::Fault(fault)),
        Answer::Records { entries, seq } => Ok((entries.iter().map(own).collect(), seq)),
        _ => Err(other()),
    }
}

fn own(entry: &commonhold_proto::Entry<'_>) -> Entry {
    Entry { key: entry.key.to_owned(), value: entry.value.unwrap_or_default().to_owned(), seq: entry.seq }
}

pub(super) fn written(reply: &Reply) -> Result<Written, Error> {
    one(reply, |answer| match answer {
        Answer::Written { seq, new, found, surrogates_removed } => {
            Some(Written { seq, new, found, surrogates_removed })
        }
        _ => None,
    })
}

pub(super) fn committed(reply: &Reply) -> Result<Seq, Error> {
    one(reply, |answer| match answer {
        Answer::Committed { seq } => Some(seq),
        _ => None,
    })
}

/// `None` is the answer of a flush that was not waited for.
pub(super) fn flushed(reply: &Reply) -> Result<Option<Flushed>, Error> {
    one(reply, |answer| match answer {
        Answer::Flushed { rewritten, seq } => Some(Some(Flushed { rewritten, seq })),
        Answer::Done => Some(None),
        _ => None,
    })
}

pub(super) fn namespaces(reply: &Reply) -> Result<Vec<NamespaceInfo>, Error> {
    let mut all = Vec::new();
    each(reply, |answer| match answer {
        Answer::Namespaces { list } => {
            all.extend(list);
            Some(())
        }
        _ => None,
    })?;
    Ok(all)
}

pub(super) fn dropped(reply: &Reply) -> Result<Dropped, Error> {
    one(reply, |answer| match answer {
        Answer::Dropped { seq, records } => Some(Dropped { seq, records }),
        _ => None,
    })
}

pub(super) fn workspaces(reply: &Reply) -> Result<Vec<WorkspaceInfo>, Error> {
    let mut all = Vec::new();
    each(reply, |answer| match answer {
        Answer::Workspaces { list } => {
            all.extend(list);
            Some(())
        }
        _ => None,
    })?;
    Ok(all)
}

pub(super) fn sessions(reply: &Reply) -> Result<Vec<SessionInfo>, Error> {
    let mut all = Vec::new();
    each(reply, |answer| match answer {
        Answer::Sessions { list } => {
            all.extend(list);
            Some(())
        }
        _ => None,
    })?;
    Ok(all)
}

/// Whether the session's flag is set, and the flag word.
pub(super) fn flag(reply: &Reply) -> Result<(bool, u64), Error> {
    one(reply, |answer| match answer {
        Answer::Flag { set, word } => Some((set, word)),
        _ => None,
    })
}

/// The token of a lock.
pub(super) fn locked(reply: &Reply) -> Result<u64, Error> {
    one(reply, |answer| match answer {
        Answer::Locked { token } => Some(token),
        _ => None,
    })
}

/// The number of a lease of slots.
pub(super) fn acquired(reply: &Reply) -> Result<u64, Error> {
    one(reply, |answer| match answer {
        Answer::Acquired { lease } => Some(lease),
        _ => None,
    })
}

pub(super) fn elected(reply: &Reply) -> Result<Election, Error> {
    one(reply, |answer| match answer {
        Answer::Elected { state } => Some(state),
        _ => None,
    })
}

pub(super) fn locks(reply: &Reply) -> Result<Vec<LockInfo>, Error> {
    let mut all = Vec::new();
    each(reply, |answer| match answer {
        Answer::Locks { list } => {
            all.extend(list);
            Some(())
        }
        _ => None,
    })?;
    Ok(all)
}

pub(super) fn slots(reply: &Reply) -> Result<Vec<SlotInfo>, Error> {
    let mut all = Vec::new();
    each(reply, |answer| match answer {
        Answer::Slots { list } => {
            all.extend(list);
            Some(())
        }
        _ => None,
    })?;
    Ok(all)
}

pub(super) fn flags(reply: &Reply) -> Result<Vec<FlagInfo>, Error> {
    let mut all = Vec::new();
    each(reply, |answer| match answer {
        Answer::Flags { list } => {
            all.extend(list);
            Some(())
        }
        _ => None,
    })?;
    Ok(all)
}

pub(super) fn status(reply: &Reply) -> Result<String, Error> {
    one(reply, |answer| match answer {
        Answer::Status { json } => Some(json.to_owned()),
        _ => None,
    })
}

pub(super) fn value(reply: &Reply) -> Result<Option<Value>, Error> {
    got(reply, Value::new)
}
