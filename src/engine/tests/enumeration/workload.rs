//! The workloads: words of at most three letters, each letter one thing that a store does or that is done to it.

use std::fmt;
use std::str::FromStr;

use commonhold_proto::Durability;

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::tests) enum Letter {
    Put,
    /// Over two namespaces, and longer than two sectors of the disk.
    PutMany,
    Delete,
    Clear,
    Merge,
    Increment,
    Drop,
    Commit,
    Flush,
    /// Of the other namespace, which lies in a workspace.
    FlushOther,
    /// A put that fills the journal's segment, and one that begins the next.
    Segment,
    /// Another program replaces a namespace's file.
    Foreign,
    /// The owner dies and the next one opens the store, while the system goes on.
    Restart,
    /// What an owner does every second.
    Second,
}

impl Letter {
    const ALL: [(Self, &str); 14] = [
        (Self::Put, "put"),
        (Self::PutMany, "put-many"),
        (Self::Delete, "delete"),
        (Self::Clear, "clear"),
        (Self::Merge, "merge"),
        (Self::Increment, "increment"),
        (Self::Drop, "drop"),
        (Self::Commit, "commit"),
        (Self::Flush, "flush"),
        (Self::FlushOther, "flush-other"),
        (Self::Segment, "segment"),
        (Self::Foreign, "foreign"),
        (Self::Restart, "restart"),
        (Self::Second, "second"),
    ];
}

/// What a workload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::tests) enum Start {
    /// An empty directory.
    Fresh,
    /// A store with two flushed namespaces, kept generations, and writes that no file holds yet.
    Lived,
}

/// What is run. Its text, as `lived/buffered/put,flush,drop`, is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::tests) struct Workload {
    pub(in crate::engine::tests) start: Start,
    pub(in crate::engine::tests) durability: Durability,
    pub(in crate::engine::tests) letters: Vec<Letter>,
}

const STARTS: [(Start, &str); 2] = [(Start::Fresh, "fresh"), (Start::Lived, "lived")];
pub(in crate::engine::tests) const DURABILITIES: [(Durability, &str); 3] =
    [(Durability::Memory, "memory"), (Durability::Buffered, "buffered"), (Durability::Synced, "synced")];

/// Most letters in a workload.
const LETTERS: usize = 3;

impl Workload {
    /// Every workload of up to three letters, at each durability, from each start.
    pub(super) fn all() -> Vec<Self> {
        let mut words: Vec<Vec<Letter>> = vec![Vec::new()];
        let mut last = words.clone();
        for _ in 0..LETTERS {
            let longer = |word: &Vec<Letter>| {
                Letter::ALL.map(|(letter, _)| word.iter().copied().chain([letter]).collect::<Vec<_>>())
            };
            last = last.iter().flat_map(longer).collect();
            words.extend(last.iter().cloned());
        }
        let each = |word: Vec<Letter>| {
            STARTS.into_iter().flat_map(move |(start, _)| {
                let word = word.clone();
                DURABILITIES.map(|(durability, _)| Self { start, durability, letters: word.clone() })
            })
        };
        words.into_iter().flat_map(each).collect()
    }
}

fn word_of<T: PartialEq + Copy>(words: &[(T, &'static str)], wanted: T) -> &'static str {
    words.iter().find(|(known, _)| *known == wanted).expect("everything has a word").1
}

fn of_word<T: Copy>(words: &[(T, &str)], wanted: &str) -> Result<T, String> {
    let found = words.iter().find(|(_, word)| *word == wanted).map(|(known, _)| *known);
    found.ok_or_else(|| format!("{wanted:?} is no word of a workload"))
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: Vec<_> = self.letters.iter().map(|letter| word_of(&Letter::ALL, *letter)).collect();
        write!(f, "{}/{}/{}", word_of(&STARTS, self.start), word_of(&DURABILITIES, self.durability), letters.join(","))
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let [start, durability, letters] = parts[..] else {
            return Err(format!("{text:?} is not START/DURABILITY/LETTER,LETTER"));
        };
        let letters = letters.split(',').filter(|word| !word.is_empty()).map(|word| of_word(&Letter::ALL, word));
        Ok(Self {
            start: of_word(&STARTS, start)?,
            durability: of_word(&DURABILITIES, durability)?,
            letters: letters.collect::<Result<_, _>>()?,
        })
    }
}
