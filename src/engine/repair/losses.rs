//! What a person is to mind before a namespace is settled: which acknowledged writes are lost by it, or cannot be vouched for.

use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::super::error::Error;
use super::super::store::Store;
use super::super::words::span_of;
use super::Plan;

impl Store {
    /// What is begun with is no file that the journal knows: only what waits is applied to it.
    pub(super) fn mind_what_is_unknown(&self, place: &Place, file: &Path, plan: &mut Plan) {
        let known = self.known(place);
        let through = known.last.min(known.covered);
        let shown = file.display();
        plan.losses.push(if through == Seq::ZERO {
            format!("{shown} is no file that the journal knows: it is taken for another program's, as it is")
        } else {
            format!(
                "{shown} is no file that the journal knows: for none of the acknowledged writes up to sequence number {through} can it be told whether it is in there, and those that are not are lost"
            )
        });
    }

    /// A file from before a start that found the journal lost: what came between is nowhere.
    pub(super) fn mind_a_lost_journal(&self, cut: Seq, plan: &mut Plan) {
        let lost = self.traces.lost_through;
        if cut < lost {
            plan.losses.push(format!(
                "it is from before the journal was lost: whatever was written to it with {} is lost but for what is in this file",
                span_of(cut.next(), lost)
            ));
        }
    }

    /// Writes above the cut that can be read nowhere.
    pub(super) fn mind_what_is_lost(&self, place: &Place, cut: Seq, plan: &mut Plan) -> Result<(), Error> {
        if let Some((first, last)) = self.lost_beyond(place, cut)? {
            plan.losses.push(format!(
                "acknowledged writes to it with {} are nowhere any more: {}",
                span_of(first, last),
                self.what_held_the_lost(place)?
            ));
        }
        Ok(())
    }
}
