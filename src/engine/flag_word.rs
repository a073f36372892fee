//! The words behind the update flags: one a name, a count whose lowest bit says set or cleared.
//!
//! A write that changes a record moves the word to the next odd number where it becomes visible, under the namespace's lock;
//! a flush moves it to the next even one only if nothing has been written since its cut, which it decides under the same
//! lock. Who has a flag, and what it last saw of the word, is not known here, so a write costs the same however many do.
//!
//! There are words for names without a namespace, too: for files that other programs own and tell each other about.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_proto::Place;

use super::store::Store;
use super::table::Table;

/// From so many words on, those that nobody holds are forgotten whenever there are twice as many.
const KEPT_WORDS: usize = 8_192;

/// The words, by name, while somebody has one.
#[derive(Default)]
pub(super) struct FlagWords {
    words: HashMap<Place, Arc<AtomicU64>>,
    /// No word that was forgotten was greater: who was told of one finds that its successor has gone on.
    beyond: u64,
}

impl FlagWords {
    fn of(&mut self, place: &Place) -> Arc<AtomicU64> {
        if let Some(word) = self.words.get(place) {
            return Arc::clone(word);
        }
        // Not at each new name: looking through all of them costs what there are.
        if self.words.len() >= KEPT_WORDS && self.words.len().is_power_of_two() {
            let beyond = &mut self.beyond;
            // Nobody who has a flag there is left, nor a namespace in memory.
            self.words.retain(|_, word| {
                let is_held = Arc::strong_count(word) > 1;
                if !is_held {
                    *beyond = (*beyond).max(clear_flags(word));
                }
                is_held
            });
        }
        let begin = || Arc::new(AtomicU64::new(self.beyond));
        Arc::clone(self.words.entry(place.clone()).or_insert_with(begin))
    }
}

/// Moves a word to the next odd number, and answers that: what it stands for is newer than what anybody has seen.
pub fn set_flags(word: &AtomicU64) -> u64 {
    moved(word, |word| (word + 1) | 1)
}

/// Moves a word to the next even number, and answers that: what it stands for is known to all.
pub fn clear_flags(word: &AtomicU64) -> u64 {
    moved(word, |word| (word + 2) & !1)
}

fn moved(word: &AtomicU64, to: impl Fn(u64) -> u64) -> u64 {
    word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some(to(word))).map_or_else(|word| word, &to)
}

impl Store {
    /// The flag word of a name, whether there is such a namespace or not. At each start the words begin at 0.
    pub fn flag_word(&self, place: &Place) -> Arc<AtomicU64> {
        self.flag_words.lock().of(place)
    }

    /// What a flush of all does for those that it has nothing else to do for.
    pub fn clear_flags_of_clean(&self) {
        self.loaded().iter().for_each(|table| clear_flags_if_clean(table));
    }
}

/// Clears the flags of a namespace whose file has all of it.
pub(super) fn clear_flags_if_clean(table: &Table) {
    // Writes become visible, and move the word, with this lock in hand.
    let _map = table.map.read();
    if !table.is_dirty() && !table.is_volatile() {
        table.flag_moved(clear_flags(table.activity.flag_word()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_moves_to_the_next_odd_or_even_number_and_never_stays() {
        let word = AtomicU64::new(0);
        assert_eq!((set_flags(&word), set_flags(&word)), (1, 3));
        assert_eq!((clear_flags(&word), clear_flags(&word), set_flags(&word)), (4, 6, 7));
    }

    #[test]
    fn a_word_that_was_forgotten_begins_again_beyond_what_it_was() {
        let mut words = FlagWords::default();
        let place = |n: usize| Place::new("", &format!("n{n}")).expect("a good name");
        let held = words.of(&place(0));
        for _ in 0..5 {
            set_flags(&words.of(&place(1)));
        }
        for n in 2..=KEPT_WORDS {
            words.of(&place(n));
        }
        assert_eq!(words.words.len(), 2, "what nobody holds was forgotten when there were too many");
        assert!(Arc::ptr_eq(&held, &words.of(&place(0))) && held.load(Ordering::Relaxed) == 0);
        assert_eq!(words.of(&place(1)).load(Ordering::Relaxed), 10, "the word was 9");
    }
}
