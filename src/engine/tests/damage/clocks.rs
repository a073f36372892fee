//! Clocks that jump: the wall clock is for people and names, so no jump of it changes what is stored, in which order, or
//! what is let go of.

use std::time::Duration;

use commonhold_proto::Durability;

use super::super::rig::{Rig, file, options, pair};

/// Where an administrator, a dead battery or a bad time server may set a clock.
const JUMPS: [u64; 7] = [0, 1, 1_000, 1_600_000_000_000, 4_102_444_800_000, u64::MAX / 2_000_000, u64::MAX];

#[test]
fn a_clock_that_jumps_anywhere_changes_neither_order_nor_content_nor_sequence_numbers() {
    let mut rig = Rig::new(options(Durability::Buffered));
    rig.options.segment_bytes = 600;
    rig.try_open().unwrap();
    let (mut expected, mut greatest) = (Vec::new(), commonhold_proto::Seq::ZERO);
    for (round, jump) in JUMPS.into_iter().chain(JUMPS.into_iter().rev()).enumerate() {
        rig.clock.set_unix_ms(jump);
        for part in 0..3 {
            let key = format!("k{round:02}{part}");
            let seq = rig.put("a", &key, "1");
            assert!(seq > greatest, "{seq} after {greatest}, at {jump}");
            greatest = seq;
            expected.push(pair(&key, "1"));
            rig.store().tick().unwrap();
        }
        rig.flush("a").unwrap();
        rig.put("a", "waits", &round.to_string());
        rig.delete("a", "waits");
        assert_eq!(rig.in_file("a"), expected);
        assert!(rig.store().namespaces().is_ok() && rig.store().stats().applied >= greatest);
        // Some owners live through the jump, others begin after it.
        if round % 2 == 0 {
            rig = rig.killed();
            rig.clock.set_unix_ms(jump);
        }
        assert_eq!(rig.all("a"), expected, "at {jump}");
    }
}

#[test]
fn temporaries_of_others_are_not_removed_because_a_clock_stands_before_they_were_made() {
    let mut rig = Rig::new(options(Durability::Buffered));
    let left = file("a").with_file_name("kv_store_a.json.tmp.77.1.5");
    rig.disk.write_file(&left, b"{\"theirs\"");
    for (now, stays) in [(0, true), (1_700_000_000_000, true), (1_700_000_000_000 + 3_700_000, false)] {
        rig.clock.set_unix_ms(now);
        rig.try_open().unwrap();
        assert_eq!(rig.disk.exists(&left), stays, "at {now}");
        rig.close();
    }
}

#[test]
fn a_journal_that_is_gone_is_begun_above_all_numbers_that_names_tell_whatever_the_clock_shows() {
    for now in JUMPS {
        let rig = Rig::buffered();
        for round in 0..3 {
            rig.put("a", "k", &round.to_string());
            rig.flush("a").unwrap();
        }
        let greatest = rig.put("a", "k", "7");
        let mut rig = rig.killed_and_closed();
        rig.disk.write_file("/store/.commonhold/owner.lock", b"{\"pid\":4242,\"since_unix_ms\":99999999999999999}");
        rig.disk.remove_path("/store/.commonhold/journal");
        rig.clock.set_unix_ms(now);
        rig.try_open().unwrap();
        assert!(rig.store().opening().journal_is_gone);
        assert!(rig.put("a", "k", "8") > greatest, "at {now}");
        rig.clock.advance(Duration::from_secs(1));
        rig.store().tick().unwrap();
    }
}
