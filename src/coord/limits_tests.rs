//! What is kept for sessions is bounded by bytes, the refusal names the limit, and what ends makes room.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use commonhold_proto::Place;
use commonhold_proto::limits::{
    MAX_ALL_HOLDINGS_BYTES, MAX_DONE_ELECTIONS_BYTES, MAX_HOLDINGS, MAX_NAME_BYTES, MAX_NAMESPACE_BYTES,
};

use super::*;

/// Flags of as many long names as one session may have.
fn fill(flags: &mut Flags, session: u64) -> Result<(), Refusal> {
    let word = Arc::new(AtomicU64::new(0));
    for at in 0..MAX_HOLDINGS {
        let place = Place::new("", &format!("{at:x>MAX_NAMESPACE_BYTES$}")).unwrap();
        flags.register(session, &place, &word, false)?;
    }
    Ok(())
}

#[test]
fn flags_are_bounded_for_one_session_by_number_and_for_all_by_room_and_make_room_when_they_end() {
    let mut flags = Flags::default();
    let (word, place) = (Arc::new(AtomicU64::new(0)), Place::new("w", "one-more").unwrap());
    fill(&mut flags, 0).unwrap();
    let limit = MAX_HOLDINGS as u64;
    assert_eq!(flags.register(0, &place, &word, false), Err(Refusal::TooMany { got: limit + 1, limit }));
    // One that it has may be registered again, and one that it forgets makes room.
    let known = Place::new("", &format!("{:x>MAX_NAMESPACE_BYTES$}", 0)).unwrap();
    assert_eq!(flags.register(0, &known, &word, true), Ok(()));
    assert_eq!(flags.forget(0, &known), Some(0));
    assert_eq!(flags.register(0, &place, &word, false), Ok(()));
    let mut last = 0;
    let refused = loop {
        last += 1;
        if let Err(refusal) = fill(&mut flags, last) {
            break refusal;
        }
    };
    let Refusal::TooLarge { of: Whose::All, got, limit } = refused else { panic!("{refused:?}") };
    assert!(got > limit && limit == MAX_ALL_HOLDINGS_BYTES as u64, "{got} {limit}");
    assert!((10..2_000).contains(&last), "{last} sessions");
    // A refusal leaves nothing behind for a session that has none; one that ends makes room for others.
    assert!(flags.register(last + 1, &place, &word, false).is_err());
    flags.end_session(0);
    assert_eq!(flags.register(last + 1, &place, &word, false), Ok(()));
    (0..=last + 1).for_each(|session| flags.end_session(session));
    assert!(flags.is_empty(), "something is left");
}

#[test]
fn names_of_done_elections_are_kept_up_to_their_limit_and_the_refusal_says_which_it_is() {
    let mut elections = Elections::default();
    // Almost full; to fill it takes a quarter of a gigabyte.
    elections.done_bytes = MAX_DONE_ELECTIONS_BYTES - 10 * (MAX_NAME_BYTES + 256);
    let name = |at: usize| format!("{at:x>MAX_NAME_BYTES$}");
    for at in 0..10 {
        assert_eq!(elections.elect(1, &name(at), None), Ok(Begun::Won));
        elections.initialized(1, &name(at), true).unwrap();
    }
    let (got, limit) = (MAX_DONE_ELECTIONS_BYTES as u64 + 256 + 3, MAX_DONE_ELECTIONS_BYTES as u64);
    assert_eq!(elections.elect(1, "new", None), Err(Refusal::TooLarge { of: Whose::Done, got, limit }));
    // What is done is told as ever, also when nobody is left.
    elections.end_session(1);
    assert_eq!(elections.elect(2, &name(0), None), Ok(Begun::Done));
    assert!(elections.elect(2, "new", None).is_err());
    assert!(elections.is_idle());
}
