//! Which namespaces to flush when the journal has outgrown its limit: those that pin its oldest segment, then those of the
//! next, until what would be left is within the limit.

use commonhold_proto::Place;
use hashbrown::HashSet;

/// A segment, as far as that matters here.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) bytes: u64,
    /// The namespaces whose files it waits for.
    pub(super) waits_for: Vec<Place>,
}

/// The namespaces to flush, in order of urgency; none if the journal is within its limit, or no flush would help.
///
/// `segments` are the journal's, oldest first; they go only in this order, and the last one, which is appended to, never.
pub(super) fn to_flush(segments: &[Holding], limit: u64, can_be_flushed: impl Fn(&Place) -> bool) -> Vec<Place> {
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut wanted = Vec::new();
    let mut seen = HashSet::new();
    let older = segments.split_last().map_or(&[][..], |(_, older)| older);
    for segment in older {
        if bytes <= limit || !segment.waits_for.iter().all(&can_be_flushed) {
            break;
        }
        let mut pins: Vec<&Place> = segment.waits_for.iter().filter(|place| seen.insert((*place).clone())).collect();
        pins.sort_unstable();
        wanted.extend(pins.into_iter().cloned());
        bytes -= segment.bytes;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        Place::new("", name).unwrap()
    }

    fn holding(bytes: u64, names: &[&str]) -> Holding {
        Holding { bytes, waits_for: names.iter().map(|name| place(name)).collect() }
    }

    fn names(segments: &[Holding], limit: u64, closed: &str) -> Vec<String> {
        let wanted = to_flush(segments, limit, |place| place.namespace.as_str() != closed);
        wanted.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn those_that_pin_the_oldest_segment_come_first_and_no_more_than_needed() {
        let segments = [holding(10, &["c", "b"]), holding(10, &["b", "a"]), holding(10, &["d"]), holding(10, &["e"])];
        assert_eq!(names(&segments, 40, ""), [""; 0], "within the limit");
        assert_eq!(names(&segments, 39, ""), ["b", "c"]);
        assert_eq!(names(&segments, 30, ""), ["b", "c"]);
        assert_eq!(names(&segments, 29, ""), ["b", "c", "a"]);
        assert_eq!(names(&segments, 0, ""), ["b", "c", "a", "d"], "the last one is still appended to");
    }

    #[test]
    fn a_segment_that_cannot_go_holds_all_behind_it_so_nothing_is_flushed_in_vain() {
        let segments = [holding(10, &[]), holding(10, &["a"]), holding(10, &["closed", "b"]), holding(10, &["c"])];
        assert_eq!(names(&segments, 0, "closed"), ["a"]);
        assert_eq!(names(&segments, 35, "closed"), [""; 0], "the first one goes by itself");
        assert_eq!(names(&segments[2..], 0, "closed"), [""; 0]);
        assert_eq!(names(&[], 0, ""), [""; 0]);
        assert_eq!(names(&segments[1..2], 0, ""), [""; 0]);
    }
}
