//! What a flush of everything and a stop leave as it is, as the daemon's status tells: so that neither says that all files
//! are up to date where `status` says otherwise.

use serde_json::Value;

/// The namespaces whose files are not what the daemon holds for right.
pub(super) struct LeftAlone {
    /// Closed: their files could not be read, or are not the right ones.
    pub(super) closed: Vec<String>,
    /// Open, or not loaded, with another file than was flushed: the journal keeps its writes to them.
    pub(super) held: Vec<String>,
}

impl LeftAlone {
    /// As `workspace/name`, out of a status; what that does not tell is left out.
    pub(super) fn of(status: &Value) -> Self {
        let list = status["namespaces"].as_array().into_iter().flatten();
        let closed = list.filter(|namespace| namespace["state"] == "closed");
        let name = |namespace: &Value| match (namespace["workspace"].as_str(), namespace["namespace"].as_str()) {
            (None | Some(""), name) => name.unwrap_or_default().to_owned(),
            (Some(workspace), name) => format!("{workspace}/{}", name.unwrap_or_default()),
        };
        let held = status["journal"]["held"].as_array().into_iter().flatten();
        let held = held.filter(|one| one["left_by_flush"] == true).filter_map(|one| one["namespace"].as_str());
        Self { closed: closed.map(name).collect(), held: held.map(str::to_owned).collect() }
    }

    /// What is to be said after `all files are up to date`; nothing where they are.
    pub(super) fn words(&self) -> String {
        let mut words = String::new();
        if !self.closed.is_empty() {
            words = format!(
                ", except those that could not be read and were left alone: {}. What waits for them is kept; \
                 `commonhold check` tells how to repair them",
                self.closed.join(", ")
            );
        }
        if !self.held.is_empty() {
            let (begin, held) = (if words.is_empty() { ", except" } else { "; and except" }, self.held.join(", "));
            words = format!(
                "{words}{begin} those that are not what was flushed and were left alone: {held}. The journal keeps what \
                 it has of them; `commonhold status` or, without a daemon, `commonhold check` tells what can be done"
            );
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_alone_is_named_and_what_a_flush_settles_is_not() {
        let status = json!({
            "namespaces": [
                {"workspace": "w", "namespace": "torn", "state": "closed"},
                {"workspace": "", "namespace": "fine", "state": "loaded"},
            ],
            "journal": {"held": [
                {"namespace": "theirs", "left_by_flush": true},
                {"namespace": "loaded", "left_by_flush": false},
            ]},
        });
        let left = LeftAlone::of(&status);
        assert_eq!((&left.closed, &left.held), (&vec!["w/torn".to_owned()], &vec!["theirs".to_owned()]));
        let words = left.words();
        assert!(words.contains("left alone: w/torn.") && words.contains("left alone: theirs."), "{words}");
        assert_eq!(LeftAlone::of(&json!({})).words(), "");
    }
}
