//! Operations whose result depends on the record that is there: merge, increment, append and stamp.
//!
//! What does not need that record is done before the turn: the operand is checked, made canonical and split. In the
//! turn, where everybody waits, the rest is one pass over a value of at most [`MAX_CHANGED_VALUE_BYTES`]; a stamp, which
//! has no such limit, is finished before the turn as well, and only done again if another write came between.

use commonhold_proto::limits::MAX_CHANGED_VALUE_BYTES;
use commonhold_proto::{Number, Seq};

use super::error::Error;
use super::map::Record;
use super::request::shown;
use crate::json::{
    Fields, NumberToken, appended, elements, members, python_float, quoted, type_words, value_of, whole_seconds,
    with_value,
};

/// An operation that makes a record's new value from its old one.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Box<str>,
    pub(super) how: How,
    /// About how many bytes the result has: what it had when the request was built, and what is added.
    pub(super) weight: usize,
}

#[derive(Debug)]
pub(super) enum How {
    Merge(Fields),
    Increment { field: Box<str>, by: Number },
    Append { field: Box<str>, items: Box<str>, keep_last: Option<usize> },
    Stamp(Stamp),
}

/// Why a change cannot be done.
#[derive(Debug)]
pub(super) enum Refused {
    /// A condition did not hold; this is the record that is there.
    Condition(Option<Seq>),
    WrongType {
        key: String,
        field: Option<String>,
        needed: &'static str,
        found: String,
    },
    Overflow {
        key: String,
        field: String,
    },
    TooLarge {
        what: String,
        got: u64,
        limit: u64,
    },
}

impl Refused {
    /// As the error of the request whose operation it was.
    pub(super) fn in_operation(self, operation: u32) -> Error {
        match self {
            Self::Condition(found) => Error::ConditionFailed { operation, found },
            Self::WrongType { key, field, needed, found } => {
                Error::WrongType { operation, key, field, needed: needed.to_owned(), found }
            }
            Self::Overflow { key, field } => Error::Overflow { operation, key, field },
            Self::TooLarge { what, got, limit } => Error::TooLarge { what, got, limit },
        }
    }
}

impl Change {
    /// The record as it becomes. Without a record that is there, merge, increment and append begin with `{}`.
    pub(super) fn apply(&self, current: Option<&Record>) -> Result<Record, Refused> {
        if let How::Stamp(stamp) = &self.how {
            return Ok(stamp.record(&self.key, current));
        }
        let value = current.map_or("{}", Record::value);
        self.check_size(value.len())?;
        let changed = match &self.how {
            How::Merge(fields) => fields.merged_into(value),
            How::Increment { field, by } => self.incremented(value, field, *by)?,
            How::Append { field, items, keep_last } => self.appended(value, field, items, *keep_last)?,
            How::Stamp(_) => unreachable!("a stamp was done above"),
        };
        let changed = changed.ok_or_else(|| self.wrong_type(None, "an object", value))?;
        self.check_size(changed.len())?;
        Ok(Record::new(&self.key, &changed))
    }

    fn incremented(&self, value: &str, field: &str, by: Number) -> Result<Option<String>, Refused> {
        if !value.starts_with('{') {
            return Ok(None);
        }
        let key = quoted(field);
        let place = value_of(value, &key);
        let token = place.clone().map_or("0", |place| &value[place]);
        let number = NumberToken::of(token).ok_or_else(|| self.wrong_type(Some(field), "a number", token))?;
        let overflow = || Refused::Overflow { key: shown(&self.key), field: shown(field) };
        // A counter that has become infinite or NaN never comes back: every later addition would be lost in it.
        let finite = |sum: f64| sum.is_finite().then(|| python_float(sum));
        let sum = match (number, by) {
            (NumberToken::Int(number), Number::Int(by)) => number.checked_add(by).map(|sum| sum.to_string()),
            // As Python adds an int and a float.
            #[expect(clippy::cast_precision_loss, reason = "an int becomes the nearest float, as in Python")]
            (NumberToken::Int(number), Number::Float(by)) => finite(number as f64 + by),
            #[expect(clippy::cast_precision_loss, reason = "an int becomes the nearest float, as in Python")]
            (NumberToken::Float(number), Number::Int(by)) => finite(number + by as f64),
            (NumberToken::Float(number), Number::Float(by)) => finite(number + by),
            (NumberToken::Big, _) => None,
        };
        let sum = sum.ok_or_else(overflow)?;
        Ok(Some(with_value(value, &key, place, &sum)))
    }

    fn appended(
        &self,
        value: &str,
        field: &str,
        items: &str,
        keep_last: Option<usize>,
    ) -> Result<Option<String>, Refused> {
        if !value.starts_with('{') {
            return Ok(None);
        }
        let key = quoted(field);
        let place = value_of(value, &key);
        let list = place.clone().map_or("[]", |place| &value[place]);
        let items: Vec<&str> = elements(items).expect("the request checked that it is a list").collect();
        let list = appended(list, &items, keep_last).ok_or_else(|| self.wrong_type(Some(field), "a list", list))?;
        Ok(Some(with_value(value, &key, place, &list)))
    }

    fn wrong_type(&self, field: Option<&str>, needed: &'static str, found: &str) -> Refused {
        let found = format!("it is {}", type_words(found));
        Refused::WrongType { key: shown(&self.key), field: field.map(shown), needed, found }
    }

    fn check_size(&self, bytes: usize) -> Result<(), Refused> {
        if bytes <= MAX_CHANGED_VALUE_BYTES {
            return Ok(());
        }
        Err(Refused::TooLarge {
            what: changed_bytes(&self.key),
            got: bytes as u64,
            limit: MAX_CHANGED_VALUE_BYTES as u64,
        })
    }
}

/// What there is too much of when a value is too long to be changed.
pub(super) fn changed_bytes(key: &str) -> String {
    format!("bytes in the value of key {:?}, which merge, increment and append change in memory", shown(key))
}

/// An object with `create_time`, `update_time` and `_id` set, as LightRAG sets them: fields that are there keep their
/// place, the others go to the end in that order.
#[derive(Debug)]
pub(super) struct Stamp {
    /// The text up to the value of `create_time`, and from behind it.
    before: String,
    after: String,
    now_s: u64,
    /// The record that was there before the turn, and what it comes to if it still is.
    seen: Option<Record>,
    expected: Record,
}

impl Stamp {
    /// `object` is canonical text; `None` if it is not an object. `seen` is the record that is there now.
    pub(super) fn new(key: &str, object: &str, now_s: u64, seen: Option<Record>) -> Option<Self> {
        const CREATED: usize = 0;
        const NAMES: [&str; 3] = ["\"create_time\"", "\"update_time\"", "\"_id\""];
        let (now, id) = (now_s.to_string(), quoted(key));
        let values = ["", now.as_str(), id.as_str()];
        let mut out = String::with_capacity(object.len() + id.len() + 80);
        let (mut split, mut set) = (0, [false; NAMES.len()]);
        out.push('{');
        let given = members(object)?.map(|member| (member.key, Some(member.value)));
        for (name, value) in given.chain(NAMES.map(|name| (name, None))) {
            let which = NAMES.iter().position(|known| *known == name);
            if value.is_none() && which.is_some_and(|which| set[which]) {
                continue;
            }
            if !out.ends_with('{') || out.len() > 1 {
                out.push(',');
            }
            out.extend([name, ":"]);
            match which {
                Some(which) => {
                    set[which] = true;
                    out.push_str(values[which]);
                    if which == CREATED {
                        split = out.len();
                    }
                }
                None => out.push_str(value.unwrap_or_default()),
            }
        }
        out.push('}');
        let after = out.split_off(split);
        let expected = Self::build(key, &out, &after, now_s, seen.as_ref());
        Some(Self { before: out, after, now_s, seen, expected })
    }

    /// The record that it comes to if nothing changes before the turn.
    pub(super) fn expected(&self) -> &Record {
        &self.expected
    }

    fn record(&self, key: &str, current: Option<&Record>) -> Record {
        let text = |record: &Record| record.value().as_ptr();
        // The one that was seen is held, so no other record can be at its address.
        if self.seen.as_ref().map(text) == current.map(text) {
            return self.expected.clone();
        }
        Self::build(key, &self.before, &self.after, self.now_s, current)
    }

    fn build(key: &str, before: &str, after: &str, now_s: u64, current: Option<&Record>) -> Record {
        let now = now_s.to_string();
        let created = current.map_or(now.as_str().into(), |record| {
            let old = record.value();
            value_of(old, "\"create_time\"").map_or("0".into(), |place| whole_seconds(&old[place]))
        });
        Record::new(key, &[before, &created, after].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(object: &str, old: Option<&str>) -> String {
        let seen = old.map(|value| Record::new("k", value));
        Stamp::new("k", object, 1_700_000_000, seen).unwrap().expected.value().to_owned()
    }

    #[test]
    fn a_new_record_gets_all_three_fields_at_its_end() {
        assert_eq!(stamped("{}", None), r#"{"create_time":1700000000,"update_time":1700000000,"_id":"k"}"#);
        assert_eq!(
            stamped(r#"{"a":1.10}"#, None),
            r#"{"a":1.10,"create_time":1700000000,"update_time":1700000000,"_id":"k"}"#
        );
    }

    #[test]
    fn fields_that_the_caller_supplies_are_overwritten_in_their_places() {
        assert_eq!(
            stamped(r#"{"_id":{"x":1},"a":1,"update_time":"x","create_time":5,"b":2}"#, None),
            r#"{"_id":"k","a":1,"update_time":1700000000,"create_time":1700000000,"b":2}"#
        );
        assert_eq!(
            stamped(r#"{"update_time":1,"a":1}"#, Some(r#"{"create_time":7}"#)),
            r#"{"update_time":1700000000,"a":1,"create_time":7,"_id":"k"}"#
        );
    }

    #[test]
    fn the_old_create_time_is_kept_as_whole_seconds() {
        for (old, created) in [
            (r#"{"create_time":12}"#, "12"),
            (r#"{"create_time":12.75}"#, "12"),
            (r#"{"create_time":null}"#, "0"),
            (r#"{"create_time":NaN}"#, "0"),
            (r#"{"create_time":-Infinity}"#, "0"),
            (r#"{"create_time":"yesterday"}"#, "0"),
            ("{}", "0"),
            ("[12]", "0"),
        ] {
            let expected = format!(r#"{{"create_time":{created},"update_time":1700000000,"_id":"k"}}"#);
            assert_eq!(stamped(r#"{"create_time":99}"#, Some(old)), expected, "after {old}");
        }
    }

    #[test]
    fn a_record_that_came_between_is_seen() {
        let stamp = Stamp::new("k", "{}", 9, None).unwrap();
        let between = Record::new("k", r#"{"create_time":5}"#);
        assert_eq!(stamp.record("k", Some(&between)).value(), r#"{"create_time":5,"update_time":9,"_id":"k"}"#);
        assert_eq!(stamp.record("k", None).value(), stamp.expected().value());
        assert!(Stamp::new("k", "[]", 9, None).is_none());
    }
}
