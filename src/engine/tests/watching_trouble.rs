//! Watching while the disk is full or has failed: what is told is what was done, whatever was refused or is of unknown outcome.

use std::time::Duration;

use commonhold_proto::{Condition, Durability, Seq};

use super::rig::{Rig, options};
use super::watching::{after, busy, drain, watch, words};
use crate::engine::disk::{Call, FailWith, Failure};
use crate::engine::{Error, Next, Watch};

const EVERY: [Durability; 3] = [Durability::Memory, Durability::Buffered, Durability::Synced];

/// What there is to tell now, until that is all or the disk refuses.
fn told_until_refused(watch: &mut Watch) -> (Vec<(u64, String)>, Option<Error>) {
    let mut seen = Vec::new();
    loop {
        match watch.next(100) {
            Ok(Next::Told(told)) => seen.extend(told.iter().map(|told| words(told))),
            Ok(Next::Lagged { lost_from, next }) => seen.push((lost_from.0, format!("lagged until {next}"))),
            Ok(Next::Nothing) => return (seen, None),
            Err(error) => return (seen, Some(error)),
        }
    }
}

#[test]
fn on_a_full_disk_watchers_are_told_what_was_done_and_nothing_of_what_was_refused() {
    for durability in EVERY {
        let mut rig = Rig::new(options(durability));
        rig.options.room_bytes = 4_096;
        let rig = rig.opened();
        let first = rig.put("a", "k", "0");
        let mut all = busy(&rig, 15);
        let mut near = watch(&rig, "a", None).unwrap();
        // This one begins in the journal.
        let mut far = watch(&rig, "a", Some(first)).unwrap();
        let from = all.len();
        for call in [Call::Allocate, Call::Create, Call::CreateDir, Call::Link] {
            rig.disk.fail(Failure::nth(1, FailWith::NoSpace).of(call).for_good());
        }
        let refused = (0..1_000).find_map(|n| match rig.try_put("a", &format!("n{n}"), "1") {
            Ok(written) => {
                all.push((written.seq.0, format!("n{n}=1")));
                None
            }
            Err(error) => Some(error),
        });
        assert!(matches!(refused, Some(Error::Full { .. })), "{refused:?}");
        all.push((rig.delete("a", "n0").seq.0, "-n0".to_owned()));
        assert_eq!(drain(&mut near), all[from..]);
        let (mut seen, refused) = told_until_refused(&mut far);
        assert!(refused.is_none() || matches!(refused, Some(Error::Full { .. })), "{refused:?}");
        assert_eq!(seen, all[..seen.len()], "what came before the refusal");
        assert!(refused.is_some() || seen.len() == all.len());
        rig.disk.mend();
        rig.store().tick().unwrap();
        all.push((rig.put("a", "later", "1").0, "later=1".to_owned()));
        seen.extend(drain(&mut far));
        assert_eq!(seen, all, "it goes on where it was refused");
        assert_eq!(drain(&mut near), all[all.len() - 1..]);
    }
}

#[test]
fn a_failed_sync_and_the_rescue_tell_watchers_what_readers_see_and_the_next_start_goes_on_or_says_what_is_lost() {
    for durability in EVERY {
        for room_bytes in [0, 512] {
            let mut rig = Rig::new(options(durability));
            (rig.options.segment_bytes, rig.options.room_bytes) = (700, room_bytes);
            let rig = rig.opened();
            let first = rig.put("a", "k", "0");
            let mut all = busy(&rig, 40);
            let mut near = watch(&rig, "a", None).unwrap();
            let mut far = watch(&rig, "a", Some(first)).unwrap();
            let from = all.len();
            all.extend(busy(&rig, 10));
            rig.disk.fail(Failure::nth(1, FailWith::Io).of(Call::Sync).on("journal"));
            let outcome = rig.write(|request, table| {
                request.durability(Some(Durability::Synced));
                request.put(&table("a"), "unknown", "1", Condition::Always).unwrap();
            });
            assert!(matches!(outcome, Err(Error::OutcomeUnknown { .. })), "{outcome:?}");
            rig.disk.mend();
            let mut seen = drain(&mut near);
            if rig.get("a", "unknown").is_some() {
                let unknown = seen.pop().unwrap();
                assert_eq!(unknown.1, "unknown=1", "what readers see is told");
                all.push(unknown.clone());
                seen.push(unknown);
            }
            assert_eq!(seen, all[from..]);
            rig.store().rescue(Duration::ZERO);
            assert!(matches!(rig.try_put("a", "k", "1"), Err(Error::Unavailable { .. })), "writing has ended");
            assert_eq!(drain(&mut near), [], "and nothing more is told");
            let (seen, refused) = told_until_refused(&mut far);
            let read = seen.iter().position(|(_, what)| what.starts_with("lagged")).unwrap_or(seen.len());
            assert_eq!(seen[..read], all[..read], "what the journal has is told as it was: {refused:?}");
            match seen.get(read) {
                Some((lost_from, _)) => assert_eq!(*lost_from, seen[..read].last().map_or(first.0, |told| told.0) + 1),
                None => assert!(refused.is_some() || read == all.len(), "{read} of {}", all.len()),
            }
            let (last, was) = (Seq(all[all.len() - 1].0), rig.all("a"));
            let rig = rig.killed();
            assert_eq!(rig.all("a"), was, "the rescue has brought all of it to the files");
            let put = rig.put("a", "later", "1");
            match watch(&rig, "a", Some(last)) {
                Ok(mut watching) => assert_eq!(drain(&mut watching), [(put.0, "later=1".to_owned())]),
                Err(error) => assert!(matches!(error, Error::Gone { oldest } if oldest > last), "{error:?}"),
            }
            let old = watch(&rig, "a", Some(first)).map(|mut watching| drain(&mut watching));
            all.push((put.0, "later=1".to_owned()));
            assert!(old.is_err() || old.is_ok_and(|seen| seen == after(&all, first.0)));
        }
    }
}
