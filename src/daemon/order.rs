//! Which of a session's requests that stand in line must wait for which: the rule that the [line](super::line) tells at its head.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::proto::Place;

/// What a request touches, and so whom it must not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touches {
    /// Nothing that the session's other requests change, but for what tells how the daemon is just now.
    Nothing,
    /// Looks at these namespaces.
    Reads(Vec<Place>),
    /// Changes something of these namespaces.
    Changes {
        places: Vec<Place>,
        /// Only while a lock is held.
        fenced: bool,
    },
    /// Asks for something that sessions hold, changes how much of it there is, or lists who has it.
    Holdings,
    /// Is about whatever was sent before.
    Everything,
    /// Gives back what was held while all before it was done.
    GivesBack,
}

impl Touches {
    fn places(&self) -> &[Place] {
        match self {
            Self::Reads(places) | Self::Changes { places, .. } => places,
            Self::Nothing | Self::Holdings | Self::Everything | Self::GivesBack => &[],
        }
    }

    /// About what it takes in memory. It is kept twice where the namespaces are being loaded.
    pub(super) fn bytes(&self) -> usize {
        let of = |place: &Place| place.workspace.as_str().len() + place.namespace.as_str().len() + size_of::<Place>();
        2 * self.places().iter().map(of).sum::<usize>()
    }
}

/// Those who stand in line, by number, which rises in the order sent. So that nobody looks through the whole line for
/// whose turn it is, each kind is kept by itself.
#[derive(Default)]
pub(super) struct Order {
    all: BTreeSet<u64>,
    of_place: HashMap<Place, VecDeque<u64>>,
    /// What changes something and came behind one that gives back, or behind another of these: they keep their order, for
    /// otherwise those that came together to their turn would be done in any.
    held: BTreeSet<u64>,
    fenced: BTreeSet<u64>,
    holdings: BTreeSet<u64>,
    give_backs: BTreeSet<u64>,
}

impl Order {
    /// A request comes to the end of the line.
    pub(super) fn add(&mut self, number: u64, touches: &Touches) {
        for place in touches.places() {
            let numbers = self.of_place.entry(place.clone()).or_default();
            // A request may name a namespace twice.
            if numbers.back() != Some(&number) {
                numbers.push_back(number);
            }
        }
        self.all.insert(number);
        if matches!(touches, Touches::Changes { .. }) && !(self.give_backs.is_empty() && self.held.is_empty()) {
            self.held.insert(number);
        }
        if let Some(kind) = self.kind_of(touches) {
            kind.insert(number);
        }
    }

    /// A request leaves the line. Answers whom it may have held up; who else stands before them is asked by
    /// [`is_free`](Self::is_free).
    pub(super) fn remove(&mut self, number: u64, touches: &Touches) -> Vec<u64> {
        self.all.remove(&number);
        self.held.remove(&number);
        if let Some(kind) = self.kind_of(touches) {
            kind.remove(&number);
        }
        let firsts = [&self.all, &self.holdings, &self.held];
        let mut next: Vec<u64> = firsts.into_iter().filter_map(BTreeSet::first).copied().collect();
        for place in touches.places() {
            let Some(numbers) = self.of_place.get_mut(place) else { continue };
            if let Ok(at) = numbers.binary_search(&number) {
                numbers.remove(at);
            }
            next.extend(numbers.front());
            if numbers.is_empty() {
                self.of_place.remove(place);
            }
        }
        next
    }

    /// Where those of its kind are kept.
    fn kind_of(&mut self, touches: &Touches) -> Option<&mut BTreeSet<u64>> {
        match touches {
            Touches::Nothing | Touches::Reads(_) | Touches::Changes { fenced: false, .. } | Touches::Everything => None,
            Touches::Changes { fenced: true, .. } => Some(&mut self.fenced),
            Touches::Holdings => Some(&mut self.holdings),
            Touches::GivesBack => Some(&mut self.give_backs),
        }
    }

    /// Whether nobody who stands before this number has to be waited for.
    pub(super) fn is_free(&self, number: u64, touches: &Touches) -> bool {
        let none_before = |set: &BTreeSet<u64>| set.first().is_none_or(|first| *first >= number);
        let is_first_of = |place: &Place| {
            let front = self.of_place.get(place).and_then(VecDeque::front);
            front.is_none_or(|front| *front >= number)
        };
        match touches {
            Touches::Nothing => true,
            Touches::Reads(places) => places.iter().all(is_first_of),
            Touches::Changes { places, .. } => {
                let is_held = [&self.give_backs, &self.held].into_iter().any(|set| !none_before(set));
                !is_held && places.iter().all(is_first_of)
            }
            Touches::Holdings => {
                [&self.give_backs, &self.held, &self.fenced, &self.holdings].into_iter().all(none_before)
            }
            Touches::Everything | Touches::GivesBack => none_before(&self.all),
        }
    }

    /// Whether one who comes now would have nobody to wait for.
    pub(super) fn lets_pass(&self, touches: &Touches) -> bool {
        self.is_free(u64::MAX, touches)
    }

    /// Who touches a namespace, in order.
    pub(super) fn of_place(&self, place: &Place) -> impl Iterator<Item = u64> + use<'_> {
        self.of_place.get(place).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Who stands in line, and whether it is a change that came behind a give-back, or behind such a change.
    type Line = BTreeMap<u64, (Touches, bool)>;

    fn is_held(line: &Line, touches: &Touches) -> bool {
        let holds = |(earlier, held): &(Touches, bool)| *held || *earlier == Touches::GivesBack;
        matches!(touches, Touches::Changes { .. }) && line.values().any(holds)
    }

    /// The rule, in words of its own: whether `later` waits for `earlier`.
    fn waits(later: &Touches, (earlier, is_held): &(Touches, bool)) -> bool {
        let shares = later.places().iter().any(|place| earlier.places().contains(place));
        let gave_back = *earlier == Touches::GivesBack || *is_held;
        match later {
            Touches::Nothing => false,
            Touches::Reads(_) => shares,
            Touches::Changes { .. } => shares || gave_back,
            Touches::Holdings => {
                gave_back || matches!(earlier, Touches::Holdings | Touches::Changes { fenced: true, .. })
            }
            Touches::Everything | Touches::GivesBack => true,
        }
    }

    fn any(rng: &mut fastrand::Rng) -> Touches {
        let names = ["a", "b", "c"];
        let places = (0..rng.usize(1..3)).map(|_| Place::new("", names[rng.usize(..names.len())]).unwrap()).collect();
        match rng.u8(..8) {
            0 => Touches::Nothing,
            1 | 2 => Touches::Reads(places),
            3 | 4 => Touches::Changes { places, fenced: rng.bool() },
            5 => Touches::Holdings,
            6 => Touches::Everything,
            _ => Touches::GivesBack,
        }
    }

    #[test]
    fn each_waits_for_those_whose_effects_it_must_see_and_begins_as_soon_as_the_last_of_them_has_left() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let (mut order, mut line, mut begun) = (Order::default(), Line::new(), BTreeSet::new());
            for number in 1..100 {
                let touches = any(&mut rng);
                let is_free = |line: &Line, number, touches: &Touches| {
                    !line.range(..number).any(|(_, earlier)| waits(touches, earlier))
                };
                assert_eq!(order.lets_pass(&touches), is_free(&line, number, &touches), "{touches:?} behind {line:?}");
                order.add(number, &touches);
                if order.is_free(number, &touches) {
                    begun.insert(number);
                }
                let held = is_held(&line, &touches);
                line.insert(number, (touches, held));
                // Any of them may leave: it was carried out, or given up before it began.
                while line.len() > rng.usize(..12) {
                    let leaving = *line.keys().nth(rng.usize(..line.len())).unwrap();
                    let (touches, _) = line.remove(&leaving).unwrap();
                    for next in order.remove(leaving, &touches) {
                        if order.is_free(next, &line[&next].0) {
                            begun.insert(next);
                        }
                    }
                    begun.remove(&leaving);
                    let free = line.iter().filter(|(number, (touches, _))| is_free(&line, **number, touches));
                    let free: BTreeSet<u64> = free.map(|(number, _)| *number).collect();
                    assert_eq!(begun, free, "after {leaving} left {line:?}");
                }
            }
        }
    }
}
