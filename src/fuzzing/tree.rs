//! A JSON text as `serde_json` reads it, with the order of its members: what [`namespace`](super::namespace()) compares with.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value. Numbers are what `serde_json` makes of their tokens, so tokens that were changed show where their meaning did.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Truth(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    /// As they stand in the text: a key may be there twice.
    Members(Vec<(String, Tree)>),
}

impl Tree {
    /// At every depth, of members with the same key one: in the place of the first, with the value of the last.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::List(list) => Self::List(list.into_iter().map(Self::settled).collect()),
            Self::Members(members) => {
                let mut kept: Vec<(String, Self)> = Vec::with_capacity(members.len());
                for (key, value) in members {
                    let value = value.settled();
                    match kept.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, known)) => *known = value,
                        None => kept.push((key, value)),
                    }
                }
                Self::Members(kept)
            }
            other => other,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Tree, E> {
        Ok(Tree::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Signed(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = entries.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Members(members))
    }
}
