//! What a person is to mind before a namespace is settled: which acknowledged writes are lost by it, or cannot be vouched for.

use std::path::Path;

use commonhold_proto::{Place, Seq};

use super::super::error::Error;
use super::super::note::Present;
use super::super::store::Store;
use super::super::words::span_of;
use super::{Plan, REACHES_BACK};
use crate::json;

impl Store {
    /// The file is given up, or is gone, and the namespace begins with nothing: says so, and what only the file had. Returns
    /// the Seq of which it is known that the namespace had no record.
    pub(super) fn mind_what_began_with_nothing(
        &self,
        place: &Place,
        present: Present,
        path: &Path,
        bytes: &[u8],
        plan: &mut Plan,
    ) -> Result<Seq, Error> {
        let from = self.what_nothing_gives(place)?;
        let is_absent = present == Present::Absent;
        let why = if is_absent { ": there is no file" } else { "" };
        plan.steps.push(match (from.is_all, from.changes) {
            (true, 1..) => format!("begin with nothing{why}; the journal {REACHES_BACK}"),
            _ => format!("begin with nothing{why}"),
        });
        let mut records = 0_u64;
        let is_whole = json::load_object(bytes, &mut |_, _| records += 1).is_ok();
        if from.is_all {
            // What is torn, or has no record, holds nothing that the journal would lack.
            if is_absent || is_whole && records > 0 {
                self.mind_the_end_of_the_journal(from.last.max(from.cut), present, path, plan);
            }
            if present == (Present::Unknown { is_foreign: true }) && is_whole && records > 0 {
                plan.losses.push("what only the file held does not count any more; the file is kept".to_owned());
            }
        } else if !is_absent {
            plan.losses.push("what only the file held does not count any more; the file is kept".to_owned());
        } else if from.cut == Seq::ZERO && !self.known(place).entries.is_empty() {
            plan.losses.push("what only the missing file held does not count any more".to_owned());
        }
        Ok(from.cut)
    }

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

    /// Waiting writes are put over a file that may hold later ones.
    pub(super) fn mind_newer_values(&self, present: Present, plan: &mut Plan) {
        if matches!(present, Present::Unknown { is_foreign: false }) {
            let end = self.end_of_a_cut_journal();
            let why = end.map_or_else(
                || "if the journal is an older one, or has lost its end".to_owned(),
                |end| format!("since the journal has lost its end after sequence number {end}"),
            );
            plan.losses.push(format!(
                "the file may be newer than the waiting writes, {why}: then these put older values over its newer ones, or delete what is there anew"
            ));
        }
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

    /// The present file is given up for one that holds everything up to `cut`, and may have what the journal's end had.
    pub(super) fn mind_the_end_of_the_journal(&self, cut: Seq, present: Present, path: &Path, plan: &mut Plan) {
        plan.losses.extend(self.what_only_the_present_file_has(cut, present, path));
    }

    /// What a present file that is given up may hold because the journal has lost its end.
    pub(in crate::engine) fn what_only_the_present_file_has(
        &self,
        cut: Seq,
        present: Present,
        path: &Path,
    ) -> Option<String> {
        let (end, shown) = (self.end_of_a_cut_journal(), path.display());
        let after = end.map_or(cut, |end| end.max(cut));
        match (present, end) {
            (Present::Own(held), _) if held > after => Some(format!(
                "{shown} is the file that the store itself left there at its last clean end, and it holds every write up to sequence number {held}, which the journal has lost: what was written after {after} is in it alone, and does not count any more. `--keep file` goes on with it"
            )),
            (Present::Absent, Some(end)) => Some(format!(
                "the journal has lost its end after sequence number {end}: what was written to it after {after} is lost"
            )),
            (Present::Unknown { is_foreign: false }, Some(end)) => Some(format!(
                "the journal has lost its end after sequence number {end}: what was written to it after {after} can only be in {shown}, which the journal does not know; it is kept, and does not count any more. `--keep file` goes on with it"
            )),
            (Present::Unknown { is_foreign: false }, None) => Some(format!(
                "{shown} is no file that the journal knows: if it is the store's own, and the journal an older one or one that has lost its end, then later writes are in it alone, and do not count any more. It is kept; `--keep file` goes on with it"
            )),
            _ => None,
        }
    }

    /// What is begun with lacks writes that can be read nowhere, or only in a file that is given up.
    pub(super) fn mind_what_it_lacks(
        &self,
        place: &Place,
        cut: Seq,
        present: Present,
        plan: &mut Plan,
    ) -> Result<(), Error> {
        plan.losses.extend(self.what_it_would_lack(place, cut, present)?);
        Ok(())
    }
}
