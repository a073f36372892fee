//! What the calls of a client ask, in the words of the wire: the same for every driver. What no request may carry is
//! refused here, before it is copied and sent.

use commonhold_proto::limits::{MAX_OPERATIONS, MAX_VALUE_BYTES};
use commonhold_proto::names::check_key;
use commonhold_proto::{Condition, Durability, Number, Op, Space, Verb, Write};

use super::error::Error;
use super::target::Target;
use super::values::{Cursor, FlushOptions};
use crate::proto::names::shown;

pub(super) fn get<'a>(target: &'a Target, key: &'a str) -> Result<Verb<'a>, Error> {
    check_key(key)?;
    Ok(Verb::Get { space: target.space(), key })
}

pub(super) fn contains<'a>(target: &'a Target, key: &'a str) -> Result<Verb<'a>, Error> {
    check_key(key)?;
    Ok(Verb::Contains { space: target.space(), key })
}

pub(super) fn get_many<'a>(target: &'a Target, keys: &'a [impl AsRef<str>]) -> Result<Verb<'a>, Error> {
    Ok(Verb::GetMany { space: target.space(), keys: checked(keys)? })
}

pub(super) fn filter_missing<'a>(target: &'a Target, keys: &'a [impl AsRef<str>]) -> Result<Verb<'a>, Error> {
    Ok(Verb::FilterMissing { space: target.space(), keys: checked(keys)? })
}

fn checked(keys: &[impl AsRef<str>]) -> Result<Vec<&str>, Error> {
    if keys.len() > MAX_OPERATIONS {
        return Err(Error::too_large("keys in the request", keys.len(), MAX_OPERATIONS));
    }
    keys.iter().map(|key| Ok(check_key(key.as_ref()).map(|()| key.as_ref())?)).collect()
}

pub(super) fn scan<'a>(
    target: &'a Target,
    cursor: Option<&'a Cursor>,
    prefix: &'a str,
    limit: u32,
    values: bool,
) -> Result<Verb<'a>, Error> {
    check_key(prefix)?;
    Ok(Verb::Scan { space: target.space(), cursor: cursor.map(Cursor::to_wire), prefix, limit, values })
}

pub(super) fn flush(target: Option<&Target>, options: FlushOptions) -> Verb<'_> {
    Verb::Flush { space: target.map(Target::space), rewrite: options.rewrite, wait: options.wait }
}

/// A write of one operation, which names its namespace by the index 0.
pub(super) fn one<'a>(target: &'a Target, op: Op<'a>, durability: Option<Durability>) -> Verb<'a> {
    write(vec![target.space()], vec![op], durability, None)
}

/// A write request that has not been given its client and number yet.
pub(super) fn write<'a>(
    spaces: Vec<Space<'a>>,
    ops: Vec<Op<'a>>,
    durability: Option<Durability>,
    if_token: Option<u64>,
) -> Verb<'a> {
    Verb::Write(Write { client: 0, number: 0, settled: 0, durability, if_token, spaces, ops })
}

pub(super) fn put<'a>(key: &'a str, value: &'a str) -> Result<Op<'a>, Error> {
    check_key(key)?;
    check_value(key, value)?;
    Ok(Op::Put { space: 0, key, value, condition: Condition::Always })
}

pub(super) fn put_stamped<'a>(key: &'a str, value: &'a str) -> Result<Op<'a>, Error> {
    check_key(key)?;
    check_value(key, value)?;
    Ok(Op::PutStamped { space: 0, key, value, condition: Condition::Always })
}

pub(super) fn delete(key: &str) -> Result<Op<'_>, Error> {
    check_key(key)?;
    Ok(Op::Delete { space: 0, key, condition: Condition::Always })
}

pub(super) fn merge<'a>(key: &'a str, fields: &'a str) -> Result<Op<'a>, Error> {
    check_key(key)?;
    check_value(key, fields)?;
    Ok(Op::Merge { space: 0, key, fields, condition: Condition::Always })
}

pub(super) fn increment<'a>(key: &'a str, field: &'a str, by: Number) -> Result<Op<'a>, Error> {
    check_key(key)?;
    check_value(key, field)?;
    Ok(Op::Increment { space: 0, key, field, by, condition: Condition::Always })
}

pub(super) fn append<'a>(
    key: &'a str,
    field: &'a str,
    items: &'a str,
    keep_last: Option<u32>,
) -> Result<Op<'a>, Error> {
    check_key(key)?;
    check_value(key, field)?;
    check_value(key, items)?;
    Ok(Op::Append { space: 0, key, field, items, keep_last, condition: Condition::Always })
}

/// Refuses a value that no request may carry.
pub(super) fn check_value(key: &str, json_text: &str) -> Result<(), Error> {
    if json_text.len() > MAX_VALUE_BYTES {
        let what = format!("bytes in the value of key {:?}", shown(key));
        return Err(Error::too_large(what, json_text.len(), MAX_VALUE_BYTES));
    }
    Ok(())
}
