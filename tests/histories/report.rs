//! A history that does not hold, made small and readable: the object with the fewest operations that contradict each
//! other, cut where the contradiction first shows, without the reads that it does not need.

use std::fmt::Write as _;

use super::checker::{Checked, Partition, Verdict, check, check_within, replay};
use super::model::{Action, Operation, Outcome, Value, When};

/// A part of a history that cannot hold, and the whole of it is no better.
pub(crate) struct Contradiction {
    pub(crate) partition: Partition,
    pub(crate) order: Vec<usize>,
    /// How many operations the object had in all.
    pub(crate) of: usize,
}

/// While a contradiction is made small, a try may take so many steps.
const STEPS_A_TRY: u64 = 200_000;

/// Makes a partition small that does not hold.
pub(crate) fn shrunk(partition: &Partition, order: Vec<usize>) -> Contradiction {
    let of = partition.operations.len();
    let mut smallest = Contradiction { partition: partition.clone(), order, of };
    // What holds until a moment has held until each moment before it.
    let mut ends: Vec<u64> = partition.operations.iter().map(|operation| operation.until).collect();
    ends.sort_unstable();
    ends.dedup();
    let (mut low, mut high) = (0, ends.len().saturating_sub(1));
    while low < high {
        let middle = usize::midpoint(low, high);
        let cut = until(partition, ends[middle]);
        if smallest.takes(cut) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    // Fewer and fewer reads at once: without one, fewer answers have to be explained.
    let mut at_once = smallest.partition.operations.len();
    while at_once > 0 {
        let mut from = 0;
        while from < smallest.partition.operations.len() {
            let mut fewer = smallest.partition.clone();
            let mut index = 0;
            fewer.operations.retain(|operation| {
                index += 1;
                !(from..from + at_once).contains(&(index - 1)) || !operation.is_pure()
            });
            let is_smaller = fewer.operations.len() < smallest.partition.operations.len();
            if !is_smaller || !smallest.takes(fewer) {
                from += at_once;
            }
        }
        at_once /= 2;
    }
    smallest
}

impl Contradiction {
    /// Goes on with a smaller partition if that does not hold either.
    fn takes(&mut self, smaller: Partition) -> bool {
        let Verdict::NotLinearizable(order) = check_within(&smaller, STEPS_A_TRY).verdict else { return false };
        (self.partition, self.order) = (smaller, order);
        true
    }
}

/// What was known at a moment.
fn until(partition: &Partition, moment: u64) -> Partition {
    let known = |operation: &Operation| {
        let mut known = operation.clone();
        if operation.until > moment {
            let has_effect =
                !operation.is_pure() && !matches!(operation.action, Action::Get | Action::Contains | Action::Commit);
            (known.until, known.outcome) = (u64::MAX, Outcome::Unknown);
            return (operation.call <= moment && has_effect).then_some(known);
        }
        Some(known)
    };
    let operations = partition.operations.iter().filter_map(known).collect();
    Partition { operations, ..partition.clone() }
}

/// The smallest contradiction among the partitions, none if there is no contradiction; and the steps of all searches.
/// The third: objects of which nothing could be decided.
pub(crate) fn check_all(partitions: &[Partition]) -> (Option<Contradiction>, u64, Vec<String>) {
    let (mut explored, mut undecided, mut smallest) = (0, Vec::new(), None::<Contradiction>);
    for partition in partitions {
        let Checked { verdict, explored: steps } = check(partition);
        explored += steps;
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided.push(partition.object.clone()),
            Verdict::NotLinearizable(order) => {
                let found = shrunk(partition, order);
                let is_smaller =
                    |known: &Contradiction| found.partition.operations.len() < known.partition.operations.len();
                if smallest.as_ref().is_none_or(is_smaller) {
                    smallest = Some(found);
                }
            }
        }
    }
    (smallest, explored, undecided)
}

impl Contradiction {
    /// A table of the operations by time, how far an order comes, and what cannot follow.
    pub(crate) fn text(&self) -> String {
        let Self { partition, order, of } = self;
        let operations = &partition.operations;
        let began = operations.iter().map(|operation| operation.call).min().unwrap_or_default();
        let ms = |at: u64| match at {
            u64::MAX => "-".to_owned(),
            at => {
                let us = at.saturating_sub(began) / 1_000;
                format!("{}.{:03}", us / 1_000, us % 1_000)
            }
        };
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("to a String");
        line(format!(
            "no order explains the answers about {}; {} of its {of} operations are enough to show it:",
            partition.object,
            operations.len()
        ));
        line(format!("{:>10} {:>10}  {:<8} {:<46} {}", "from ms", "to ms", "who", "what", "answer"));
        for operation in operations {
            line(format!(
                "{:>10} {:>10}  {:<8} {:<46} {}",
                ms(operation.call),
                ms(operation.until),
                who(operation),
                what(operation),
                answer(operation)
            ));
        }
        let (mut model, states) = replay(partition, order);
        let names: Vec<String> = order.iter().map(|&index| who(&operations[index])).collect();
        line(format!("the longest order that explains its answers: {}", names.join(", ")));
        let values: Vec<String> = states.iter().map(|state| shown(model.value(state))).collect();
        line(format!("the object is then: {}", values.join(" or ")));
        let left: Vec<&Operation> =
            operations.iter().enumerate().filter(|(index, _)| !order.contains(index)).map(|(_, one)| one).collect();
        let first_answer = left.iter().map(|operation| operation.until).min().unwrap_or_default();
        for operation in left.into_iter().filter(|operation| operation.call <= first_answer) {
            let verdict = if model.step(&states, operation).is_empty() {
                "cannot be next"
            } else {
                "may be next, but then another answer is not explained"
            };
            line(format!("{} {} → {}: {verdict}", who(operation), what(operation), answer(operation)));
        }
        text
    }
}

fn who(operation: &Operation) -> String {
    match operation.action {
        Action::Crash { .. } => "daemon".to_owned(),
        _ => format!("{}:{}", operation.process, operation.id),
    }
}

fn what(operation: &Operation) -> String {
    let action = match &operation.action {
        Action::Put { stamp } => format!("put {stamp}"),
        Action::Delete => "delete".to_owned(),
        Action::Increment { by } => format!("increment by {by}"),
        Action::Append { item, keep_last } => format!("append {item}, keep {keep_last}"),
        Action::Merge { mark } => format!("merge mark {mark}"),
        Action::Clear => "clear".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Get => "get".to_owned(),
        Action::Contains => "contains".to_owned(),
        Action::Commit => "commit".to_owned(),
        Action::Crash { killed: true, .. } => "is killed".to_owned(),
        Action::Crash { killed: false, .. } => "is stopped".to_owned(),
    };
    let when = match &operation.when {
        When::Always => String::new(),
        When::IfAbsent => " if absent".to_owned(),
        When::IfSeen { value, .. } => format!(" if still {}", shown(Some(value))),
    };
    let pins = if operation.pins { " (more than memory)" } else { "" };
    format!("{action}{when}{pins}")
}

fn answer(operation: &Operation) -> String {
    match &operation.outcome {
        Outcome::Written { existed: true } => "done, it was there".to_owned(),
        Outcome::Written { existed: false } => "done, it was not there".to_owned(),
        Outcome::Refused if operation.weak => "refused (a restart may be why)".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Read(value) => shown(value.as_ref()),
        Outcome::Exists(exists) => exists.to_string(),
        Outcome::Mixed(found) => format!("a mixture: {found}"),
        Outcome::Done => "done".to_owned(),
        Outcome::Unknown if operation.lost_by.is_some() => "lost before it was answered, if done".to_owned(),
        Outcome::Unknown => "unknown".to_owned(),
        Outcome::NotDone => "not done".to_owned(),
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(Value { stamp, count, log, mark }) = value else { return "absent".to_owned() };
    let mut fields = vec![format!("stamp {stamp}")];
    fields.extend((*count != 0).then(|| format!("count {count}")));
    fields.extend((*mark != 0).then(|| format!("mark {mark}")));
    fields.extend((!log.is_empty()).then(|| format!("log {log:?}")));
    format!("({})", fields.join(", "))
}
