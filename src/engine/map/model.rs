//! The map as one would write it without thinking of speed: what the seeded tests compare the real one with.

use std::collections::HashMap;

/// An insertion-ordered map: replaced entries keep their place, removed ones come back at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    entries: Vec<Option<(String, String)>>,
    places: HashMap<String, usize>,
}

impl Model {
    /// The value under `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.places.get(key).and_then(|at| self.entries[*at].as_ref()).map(|(_, value)| value.as_str())
    }

    /// Puts `value` under `key` and returns the one before it.
    pub(crate) fn put(&mut self, key: &str, value: &str) -> Option<String> {
        let entry = Some((key.to_owned(), value.to_owned()));
        if let Some(at) = self.places.get(key) {
            return std::mem::replace(&mut self.entries[*at], entry).map(|(_, value)| value);
        }
        self.places.insert(key.to_owned(), self.entries.len());
        self.entries.push(entry);
        None
    }

    /// Removes `key` and returns its value.
    pub(crate) fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.places.remove(key)?;
        self.entries[at].take().map(|(_, value)| value)
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Keys and values in insertion order.
    pub(crate) fn content(&self) -> Vec<(String, String)> {
        self.entries.iter().flatten().cloned().collect()
    }
}
