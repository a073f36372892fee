//! What watchers may have seen, given what was written and what crashes took.
//!
//! A watcher's story is told in chapters: each begins after some write and is told some writes, and ends where the watcher left, was
//! told of a gap, or where all was over. What it was told must be the writes, each once, in order, none left out but those of which it
//! was told so.

use std::collections::BTreeMap;

/// One write to what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// What it did, change by change, with the key of each; none for a clear.
    pub(crate) changes: Vec<(Option<String>, String)>,
    /// A crash took it, before this start of the daemon.
    pub(crate) lost: bool,
    /// Perhaps it did, or perhaps it was never done: it may be told, and need not be.
    pub(crate) unsure: bool,
    /// Which start of the daemon did it.
    pub(crate) boot: u64,
}

/// How a chapter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The watcher went away; the next chapter begins after what this one was told.
    Left,
    Lagged {
        lost_from: u64,
        next: u64,
    },
    Gone {
        oldest: u64,
    },
    /// All through some write had come, if only that it was of other keys, and a crash has taken what follows this one.
    Rewound {
        to: u64,
        through: u64,
    },
    /// Nothing more was written.
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chapter {
    pub(crate) after: u64,
    pub(crate) told: Vec<(u64, String)>,
    pub(crate) end: End,
    /// Which writes the journal held after it had been said that what follows `after` has left it.
    pub(crate) in_journal: Vec<u64>,
}

impl Chapter {
    /// One that begins after this write.
    pub(crate) fn after(after: u64) -> Self {
        Self { after, told: Vec::new(), end: End::Left, in_journal: Vec::new() }
    }
}

/// All acknowledged writes by their Seqs.
pub(crate) type Writes = BTreeMap<u64, Write>;

/// What is told of a write to one who watches a prefix.
pub(crate) fn words(write: &Write, prefix: &str) -> String {
    let under = write.changes.iter().filter(|(key, _)| key.as_ref().is_none_or(|key| key.starts_with(prefix)));
    under.map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(" ")
}

/// Whether a watcher's story can be true; else what is wrong with it.
pub(crate) fn check(writes: &Writes, prefix: &str, story: &[Chapter]) -> Result<(), String> {
    // The last write that this watcher was told, as long as no gap was announced since.
    let mut told_last: Option<u64> = None;
    for (index, chapter) in story.iter().enumerate() {
        let wrong = |what: String| Err(format!("chapter {index} (after {}, {:?}): {what}", chapter.after, chapter.end));
        let mut at = chapter.after;
        for (seq, seen) in &chapter.told {
            if *seq <= at {
                return wrong(format!("{seq} is told after {at}"));
            }
            let Some(write) = writes.get(seq) else { return wrong(format!("{seq} was never acknowledged")) };
            if words(write, prefix) != *seen {
                return wrong(format!("{seq} is told as {seen:?} and was {:?}", words(write, prefix)));
            }
            if let Some(before) = told_last.and_then(|before| writes.get(&before))
                && before.lost
                && !before.unsure
                && before.boot != write.boot
            {
                return wrong(format!("{seq} follows {told_last:?}, which a crash had taken, without a word"));
            }
            missed(writes, prefix, at, *seq).or_else(|missed| wrong(format!("{missed} is missing before {seq}")))?;
            (at, told_last) = (*seq, Some(*seq));
        }
        match chapter.end {
            End::Left => {}
            End::Over => {
                missed(writes, prefix, at, u64::MAX).or_else(|seq| wrong(format!("{seq} is missing at the end")))?;
            }
            End::Lagged { lost_from, next } => {
                if lost_from <= at || next <= lost_from {
                    return wrong(format!("it cannot lag there: {at} was told"));
                }
                missed(writes, prefix, at, lost_from).or_else(|seq| wrong(format!("{seq} is before the lag")))?;
                told_last = None;
            }
            End::Gone { oldest } => {
                if oldest <= at {
                    return wrong(format!("what followed {at} is not gone"));
                }
                if let Some(held) = chapter.in_journal.iter().find(|seq| **seq < oldest) {
                    return wrong(format!("the journal still had {held}"));
                }
                told_last = None;
            }
            End::Rewound { to, through } => {
                if through < at {
                    return wrong(format!("{at} was told, and all came through {through}"));
                }
                if to >= through {
                    return wrong(format!("{through} was not lost"));
                }
                let kept = writes.range(to + 1..=through).find(|(_, write)| !write.lost && !write.unsure);
                if let Some((seq, _)) = kept {
                    return wrong(format!("{seq} was not lost"));
                }
                told_last = None;
            }
        }
        if let Some(next) = story.get(index + 1) {
            let goes_on = match chapter.end {
                End::Left => next.after >= at,
                End::Lagged { next: begins, .. } => next.after + 1 == begins,
                _ => true,
            };
            if !goes_on {
                return wrong(format!("the next begins after {}", next.after));
            }
            // What it has seen of other keys was seen, too.
            if chapter.end == End::Left {
                missed(writes, prefix, at, next.after + 1)
                    .or_else(|seq| wrong(format!("{seq} is missing before the next chapter")))?;
            }
        }
    }
    Ok(())
}

/// The first write between the two that there is something to tell of.
fn missed(writes: &Writes, prefix: &str, after: u64, before: u64) -> Result<(), u64> {
    let mut between = writes.range(after + 1..before.max(after + 1));
    between
        .find(|(_, write)| !write.lost && !write.unsure && !words(write, prefix).is_empty())
        .map_or(Ok(()), |(seq, _)| Err(*seq))
}

#[test]
fn the_checker_finds_every_kind_of_lie() {
    let write = |n: u64, lost: bool, boot: u64| Write {
        changes: vec![(Some(format!("k{}", n % 2)), format!("k{}={n}", n % 2))],
        lost,
        unsure: false,
        boot,
    };
    let mut writes: Writes = (1..=6).map(|n| (n, write(n, n > 4, 1))).collect();
    writes.extend((101..=104).map(|n| (n, write(n, false, 2))));
    // Perhaps it was done.
    writes.insert(50, Write { unsure: true, ..write(50, false, 1) });
    let told =
        |seqs: &[u64]| -> Vec<(u64, String)> { seqs.iter().map(|seq| (*seq, words(&writes[seq], ""))).collect() };
    let chapter = |after: u64, seqs: &[u64], end: End| Chapter { told: told(seqs), end, ..Chapter::after(after) };
    let gone = |after: u64, oldest: u64, in_journal: &[u64]| Chapter {
        in_journal: in_journal.to_vec(),
        ..chapter(after, &[], End::Gone { oldest })
    };
    let truth = [
        vec![chapter(0, &[1, 2, 3, 4, 101, 102, 103, 104], End::Over)],
        vec![chapter(2, &[3], End::Left), chapter(3, &[4, 101, 102, 103, 104], End::Over)],
        vec![
            chapter(0, &[1, 2, 3, 4, 5], End::Left),
            chapter(5, &[], End::Rewound { to: 4, through: 5 }),
            chapter(102, &[103, 104], End::Over),
        ],
        // The last ones were of other keys.
        vec![chapter(3, &[4], End::Rewound { to: 5, through: 6 }), chapter(104, &[], End::Over)],
        vec![chapter(0, &[1], End::Lagged { lost_from: 2, next: 102 }), chapter(101, &[102, 103, 104], End::Over)],
        vec![chapter(1, &[], End::Gone { oldest: 3 }), chapter(104, &[], End::Over)],
        vec![gone(1, 3, &[3, 4]), chapter(104, &[], End::Over)],
        vec![chapter(0, &[1, 2, 3, 4, 50, 101, 102, 103, 104], End::Over)],
    ];
    for story in &truth {
        assert_eq!(check(&writes, "", story), Ok(()), "{story:?}");
    }
    let lies = [
        vec![chapter(0, &[1, 2, 4, 101, 102, 103, 104], End::Over)],
        vec![chapter(0, &[1, 2, 2, 3, 4], End::Left)],
        vec![chapter(0, &[2, 1], End::Left)],
        vec![chapter(0, &[1, 2, 3, 4, 101], End::Over)],
        vec![chapter(0, &[1, 2, 3, 4, 5, 101], End::Left)],
        vec![chapter(0, &[1, 2, 3, 4, 5], End::Left), chapter(5, &[101, 102, 103, 104], End::Over)],
        vec![chapter(0, &[1], End::Left), chapter(0, &[1, 2], End::Left)],
        vec![chapter(0, &[1], End::Left), chapter(2, &[3], End::Left)],
        vec![chapter(0, &[1], End::Lagged { lost_from: 4, next: 101 })],
        vec![chapter(4, &[], End::Rewound { to: 3, through: 4 })],
        vec![chapter(3, &[4], End::Rewound { to: 6, through: 6 })],
        vec![chapter(3, &[4], End::Rewound { to: 2, through: 3 })],
        vec![chapter(4, &[101], End::Gone { oldest: 50 })],
        vec![gone(1, 3, &[2, 3, 4])],
        vec![gone(2, 4, &[1])],
        vec![Chapter { told: vec![(1, "k1=2".to_owned())], ..Chapter::after(0) }],
        vec![Chapter { told: vec![(7, "k1=7".to_owned())], ..Chapter::after(0) }],
    ];
    for story in &lies {
        assert!(check(&writes, "", story).is_err(), "{story:?}");
    }
}
