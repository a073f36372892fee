//! Sides that take turns: in every round each is measured once, the first one another each time, and the median of its
//! rounds is its figure. A disturbance of the machine so meets all sides alike.

use anyhow::{Context as _, Result};

use crate::latencies::{Latencies, Percentiles};

/// One turn: runs the work once, records single calls if it has some, and answers its figure in the case's unit.
type Turn<'a> = Box<dyn FnMut(&mut Latencies) -> Result<f64> + 'a>;

/// Who takes turns in a case. The first one is Commonhold.
#[derive(Default)]
pub struct Sides<'a>(Vec<(String, Turn<'a>)>);

/// What came of one side.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: String,
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub latencies: Option<Percentiles>,
}

impl<'a> Sides<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn side(mut self, name: &str, turn: impl FnMut(&mut Latencies) -> Result<f64> + 'a) -> Self {
        self.0.push((name.to_owned(), Box::new(turn)));
        self
    }

    /// A side that may be missing.
    #[must_use]
    pub fn maybe(self, name: &str, turn: Option<impl FnMut(&mut Latencies) -> Result<f64> + 'a>) -> Self {
        match turn {
            Some(turn) => self.side(name, turn),
            None => self,
        }
    }

    /// Lets them take turns, after one turn each that does not count.
    pub fn measure(self, rounds: usize) -> Result<Vec<Measured>> {
        self.take_turns(rounds, true)
    }

    /// The same where a turn is dear and its first one no different from the others.
    pub fn measure_without_warming_up(self, rounds: usize) -> Result<Vec<Measured>> {
        self.take_turns(rounds, false)
    }

    fn take_turns(mut self, rounds: usize, warm_up: bool) -> Result<Vec<Measured>> {
        let count = self.0.len();
        if warm_up {
            for (name, turn) in &mut self.0 {
                turn(&mut Latencies::default()).with_context(|| format!("{name}, warming up"))?;
            }
        }
        let mut figures = vec![Vec::with_capacity(rounds); count];
        let mut latencies: Vec<Latencies> = (0..count).map(|_| Latencies::default()).collect();
        for round in 0..rounds.max(1) {
            for index in (0..count).map(|turn| (round + turn) % count) {
                let (name, turn) = &mut self.0[index];
                let figure = turn(&mut latencies[index]).with_context(|| format!("{name}, round {round}"))?;
                figures[index].push(figure);
            }
        }
        let all = self.0.iter().zip(figures).zip(&latencies);
        Ok(all.map(|(((name, _), figures), latencies)| Measured::new(name, figures, latencies)).collect())
    }
}

impl Measured {
    /// `figures` is not empty.
    pub fn new(name: &str, mut figures: Vec<f64>, latencies: &Latencies) -> Self {
        figures.sort_by(f64::total_cmp);
        Self {
            name: name.to_owned(),
            median: figures[figures.len() / 2],
            least: figures[0],
            most: figures[figures.len() - 1],
            latencies: latencies.percentiles(),
        }
    }

    /// Of something that was measured once.
    pub fn once(name: &str, figure: f64) -> Self {
        Self::new(name, vec![figure], &Latencies::default())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn sides_take_turns_and_each_begins_once_in_a_while() {
        let order = RefCell::new(String::new());
        let side = |name: char| {
            let order = &order;
            move |_: &mut Latencies| {
                order.borrow_mut().push(name);
                Ok(1.0)
            }
        };
        Sides::new().side("a", side('a')).side("b", side('b')).measure(3).expect("nothing fails");
        assert_eq!(*order.borrow(), "ababbaab");
    }

    #[test]
    fn the_median_is_of_the_rounds_and_not_of_the_warming_up() {
        let mut figures = [100.0, 3.0, 1.0, 2.0].into_iter();
        let measured = Sides::new().side("a", |_| Ok(figures.next().expect("four turns"))).measure(3).expect("ok");
        assert!((measured[0].median - 2.0).abs() < 1e-9);
        assert!((measured[0].most - 3.0).abs() < 1e-9);
    }
}
