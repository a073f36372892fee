//! Settling one namespace: what it is to hold is worked out in memory, and then either the journal is told that the file
//! is right as it is, or a flush writes the file anew and keeps the old one.

use std::path::PathBuf;
use std::sync::Arc;

use commonhold_proto::{Place, Seq};

use super::super::check::{Kept, generations_of};
use super::super::closing::{Closing, Why};
use super::super::error::Error;
use super::super::flush::FlushHow;
use super::super::journal::{Contents, EffectKind, EffectRef, Entry, Fingerprint, for_each_effect};
use super::super::load::replay;
use super::super::map::{Map, Record};
use super::super::note::Present;
use super::super::store::Store;
use super::super::table::{FileState, Table};
use super::super::words::{counted, span_of};
use super::{Plan, Settle, format_of, refuse_what_is_no_file};
use crate::json::{self, FileFormat};

/// A repair that is worked out and not done yet.
pub(in crate::engine) struct Prepared {
    pub(in crate::engine) plan: Plan,
    pub(super) format: FileFormat,
    work: Work,
}

impl Prepared {
    /// How many changes are applied to what is begun with.
    pub(in crate::engine) fn applied(&self) -> u64 {
        match &self.work {
            Work::Keep(_) => 0,
            Work::Write(content) => content.applied,
        }
    }
}

enum Work {
    /// The journal is told that this is the namespace's file.
    Keep(Option<Fingerprint>),
    /// The file is written anew, with these records.
    Write(Box<Content>),
}

/// What the namespace is to hold.
struct Content {
    map: Map,
    /// How many changes were applied to what it began with, and the last of them.
    applied: u64,
    last: Seq,
    /// The last of them is a drop: there is to be no file.
    dropped: bool,
    /// It does not hold all that the journal has, which is to be set aside.
    sets_aside: bool,
}

/// What the new content begins with.
struct Start {
    bytes: Vec<u8>,
    /// It holds every write up to this one.
    cut: Seq,
    /// That is taken for so, and known of nothing: what the journal has from before may be in nothing else.
    is_unknown: bool,
}

impl Store {
    /// Works out what settling the namespace so comes to. Changes nothing.
    pub(in crate::engine) fn prepare(&self, place: &Place, settle: Settle) -> Result<Prepared, Error> {
        let base = self.base(place, None)?;
        let opens_well = base.as_ref().is_ok_and(|base| !self.is_taken_for_another(place, base));
        let closing = base.err();
        if let Some(closing) = &closing {
            refuse_what_is_no_file(place, closing)?;
        } else if opens_well && !matches!(settle, Settle::Generation { .. }) {
            return Err(Error::NothingToRepair { what: format!("namespace {place} opens") });
        }
        let path = self.layout.namespace_file(place);
        let (stat, bytes) = match self.read_namespace_file(&path)? {
            Ok(read) => read,
            Err(why) => return Err(cannot(place, &why.to_string())),
        };
        let found = stat.map(|_| Fingerprint::of(&bytes));
        let present = self.present(place, stat.as_ref(), found);
        let known = self.known(place);
        let mut plan = Plan::default();
        // What is given up for what is begun with.
        let mut given_up = present;
        let start = match settle {
            Settle::KeepFile => return self.prepare_keeping(place, closing.as_ref(), &bytes, found, present),
            Settle::ApplyJournal if found.is_some() => {
                parses(place, &bytes, found)?;
                plan.steps.push(format!("begin with {}", path.display()));
                if present.holds().is_none() {
                    self.mind_what_is_unknown(place, &path, &mut plan);
                    self.mind_newer_values(present, &mut plan);
                }
                given_up = Present::Absent;
                Start { bytes, cut: present.holds().unwrap_or(known.covered), is_unknown: present.holds().is_none() }
            }
            Settle::ApplyJournal | Settle::SetAside => {
                let cut = self.mind_what_began_with_nothing(place, present, &path, &bytes, &mut plan)?;
                Start { bytes: Vec::new(), cut, is_unknown: false }
            }
            Settle::Generation { number, foreign } => {
                let kept = self.kept(place, number, foreign)?;
                let there = bytes;
                let bytes = self.disk.read(&kept.path).map_err(Error::disk("read", &kept.path))?;
                let print = Fingerprint::of(&bytes);
                parses(place, &bytes, Some(print))?;
                plan.steps.push(format!("begin with {}", kept.path.display()));
                let cut = known.cut_of(Some(print)).or((!foreign).then_some(number));
                match cut {
                    None => self.mind_what_is_unknown(place, &kept.path, &mut plan),
                    Some(cut) => self.mind_a_lost_journal(cut, &mut plan),
                }
                let is_unknown = cut.is_none();
                let cut = cut.unwrap_or(known.covered);
                if found.is_none() || parses(place, &there, found).is_ok() {
                    self.mind_the_end_of_the_journal(cut, present, &path, &mut plan);
                }
                Start { bytes, cut, is_unknown }
            }
        };
        let format = format_of(&start.bytes);
        let mut content = self.content(place, &start)?;
        if closing.is_none() && content.applied == 0 && !matches!(settle, Settle::Generation { .. }) {
            let what = format!(
                "namespace {place} opens, and the journal has nothing to apply to {}",
                if start.bytes.is_empty() { "nothing" } else { "its file" }
            );
            return Err(Error::NothingToRepair { what });
        }
        plan.steps.push(match content.applied {
            0 => "apply no writes: none is left that it lacks".to_owned(),
            1 => format!("apply 1 change that it lacks, up to sequence number {}", content.last),
            applied => format!(
                "apply {} that it lacks, up to sequence number {}",
                counted(applied, "change", "changes"),
                content.last
            ),
        });
        if let Some(left) = start.is_unknown.then(|| self.left_in_the_journal(place)).transpose()?.flatten() {
            content.sets_aside = true;
            let room = self.layout.quarantine(place).with_file_name("");
            plan.steps.push(format!(
                "set what the journal has of it, {left}, aside in {}: it may be the last copy of what was flushed before",
                room.display()
            ));
        }
        if found.is_some() {
            let directory = self.layout.generations(place);
            plan.steps.push(format!("keep the present file in {} as foreign", directory.display()));
        }
        let records = counted(content.map.len() as u64, "record", "records");
        plan.steps.push(match (content.dropped, found) {
            (true, Some(_)) => format!("remove {}, for the last write to it is a drop", path.display()),
            (true, None) => format!("make no {}, for the last write to it is a drop", path.display()),
            (false, _) => format!("write {} with {records}", path.display()),
        });
        self.mind_what_it_lacks(place, start.cut, given_up, &mut plan)?;
        if let Some(flaw) = self.flaw_of_quarantine(place) {
            plan.losses.push(format!("{flaw}; what can be read of it is applied, and the file is set aside"));
        }
        Ok(Prepared { plan, format, work: Work::Write(Box::new(content)) })
    }

    fn prepare_keeping(
        &self,
        place: &Place,
        closing: Option<&Closing>,
        bytes: &[u8],
        found: Option<Fingerprint>,
        present: Present,
    ) -> Result<Prepared, Error> {
        parses(place, bytes, found)?;
        let path = self.layout.namespace_file(place);
        let known = self.known(place);
        let mut plan = Plan::default();
        let shown = path.display();
        plan.steps.push(match found {
            Some(_) => format!("keep {shown} as it is, and tell the journal that it is right"),
            None => format!("begin without a file: there is no {shown}"),
        });
        let cut = if found.is_some() { present.holds() } else { known.cut_of(None) };
        match found {
            _ if cut.is_some() => {}
            Some(_) => self.mind_what_is_unknown(place, &path, &mut plan),
            None => plan.losses.push(format!(
                "what the missing file held is given up: acknowledged writes up to sequence number {} may be among it",
                known.covered
            )),
        }
        let held = cut.unwrap_or(known.covered);
        if closing.is_some_and(|closing| closing.waiting.is_some()) || self.quarantine_of(place).is_some() {
            let (mut writes, mut first, mut last) = (0_u64, None, Seq::ZERO);
            self.for_each_left(place, held, |seq, _| {
                writes += u64::from(seq != last);
                first = first.or(Some(seq));
                last = seq;
            })?;
            if let Some(first) = first {
                let room = self.layout.quarantine(place).with_file_name("");
                let aside = counted(writes, "write", "writes");
                let told = format!("{aside} ({})", span_of(first, last));
                plan.steps.push(format!("set {told} aside in {}", room.display()));
                plan.losses.push(format!("acknowledged writes that are set aside do not count any more: {told}"));
            }
        } else if let Some(left) = self.left_in_the_journal(place)? {
            let room = self.layout.quarantine(place).with_file_name("");
            plan.steps.push(format!("set what the journal has of it, {left}, aside in {}", room.display()));
        }
        self.mind_what_it_lacks(place, held, Present::Absent, &mut plan)?;
        Ok(Prepared { plan, format: format_of(bytes), work: Work::Keep(found) })
    }

    fn kept(&self, place: &Place, number: Seq, foreign: bool) -> Result<Kept, Error> {
        let all = generations_of(self, place)?;
        let names: Vec<String> = all.iter().map(Kept::name).collect();
        all.into_iter().find(|kept| kept.number == number && kept.foreign == foreign).ok_or_else(|| {
            let there =
                if names.is_empty() { "none is kept".to_owned() } else { format!("kept are {}", names.join(", ")) };
            cannot(place, &format!("there is no such generation; {there}"))
        })
    }

    /// The records of the start with every write above its cut that is left.
    fn content(&self, place: &Place, start: &Start) -> Result<Content, Error> {
        let mut map = Map::expecting(json::expected_records(&start.bytes));
        json::load_object(&start.bytes, &mut |key, value| {
            let record = Record::new(key, value);
            record.set_seq(start.cut);
            map.put(record);
        })
        .map_err(|error| cannot(place, &error.to_string()))?;
        let (mut applied, mut last, mut dropped) = (0_u64, start.cut, false);
        self.for_each_left(place, start.cut, |seq, effect| {
            replay(&mut map, seq, effect);
            applied += 1;
            last = last.max(seq);
            dropped = effect.kind == EffectKind::Drop;
        })?;
        Ok(Content { map, applied, last, dropped, sets_aside: false })
    }

    /// Hands every effect above the cut that quarantine and journal still have to `each`, in order.
    pub(in crate::engine) fn for_each_left(
        &self,
        place: &Place,
        cut: Seq,
        mut each: impl FnMut(Seq, EffectRef<'_>),
    ) -> Result<(), Error> {
        let mut above = cut;
        if let Some(quarantine) = self.quarantine_of(place) {
            // Those of a journal that is gone have numbers of their own; they come before all that is in this one.
            let other = self.turn.exclusive(|writer| writer.appender.store()) != quarantine.store;
            let mut last = cut;
            Contents::read(&*self.disk, &quarantine.path)?.for_each_effect(|seq, effect| {
                if other || seq > cut {
                    each(seq, effect);
                    last = last.max(seq);
                }
            });
            if !other {
                above = if quarantine.flaw.is_none() { above.max(quarantine.through) } else { last };
            }
        }
        for_each_effect(&*self.disk, &self.ranges_beyond(&[(place, above)]), |seq, of, effect| {
            if of == place && seq > above {
                each(seq, effect);
            }
        })
    }

    /// Does it. The store is open to be written, and nobody else has it.
    pub(super) fn settle(&self, place: &Place, prepared: Prepared) -> Result<Plan, Error> {
        let Prepared { plan, work, .. } = prepared;
        let flawed = self.flaw_of_quarantine(place).is_some();
        match work {
            Work::Keep(found) => {
                if flawed {
                    // It goes first: what waits in the journal itself is quarantined only where no bad file is in the way.
                    self.set_quarantine_aside(place)?;
                    self.forget_quarantine(place)?;
                    self.quarantine(place);
                }
                let waits = self.known(place).is_waiting();
                if waits && self.quarantine_of(place).is_none() {
                    let reason =
                        "the waiting writes could not be put into quarantine; see the log above, and try again";
                    return Err(cannot(place, reason));
                }
                self.set_waiting_aside(place)?;
                let cut = self.turn.exclusive(|writer| writer.appender.take_seq());
                let entry = Entry { file: found, cut };
                let seq = self.turn.exclusive(|writer| writer.appender.append_loaded(place, entry))?;
                self.progress.sync_through(seq)?;
                // From here on the journal knows the file, and what was set aside is not needed under its old name.
                self.forget_quarantine(place)?;
            }
            Work::Write(content) => {
                if flawed {
                    self.set_quarantine_aside(place)?;
                } else if content.sets_aside {
                    self.set_waiting_aside(place)?;
                }
                // Above everything that waits, so that the file that is written settles all of it.
                let cut = self.turn.exclusive(|writer| writer.appender.take_seq());
                let table = Table::new(
                    place.clone(),
                    self.next_load(),
                    content.map,
                    (cut.max(content.last), Seq::ZERO),
                    FileState::default(),
                    self.activity(place),
                );
                table.set_completed(Seq::ZERO);
                if content.dropped {
                    table.set_dropped(table.last());
                }
                self.flush_table(&Arc::new(table), FlushHow { rewrite: true, lock_timeout: None }, &self.via())?;
                self.progress.sync_through(self.progress.written())?;
                if flawed {
                    self.forget_quarantine(place)?;
                }
            }
        }
        self.tick()?;
        Ok(plan)
    }

    /// Keeps what quarantine or journal have of the namespace under a name under which it does not count and stays.
    fn set_waiting_aside(&self, place: &Place) -> Result<(), Error> {
        if self.quarantine_of(place).is_some() {
            self.set_quarantine_aside(place)
        } else {
            self.keep_waiting_aside(place)
        }
    }

    /// Gives the quarantine file a second name under which it does not count and stays.
    fn set_quarantine_aside(&self, place: &Place) -> Result<(), Error> {
        let Some(quarantine) = self.quarantine_of(place) else { return Ok(()) };
        let mut number = quarantine.through.0;
        loop {
            let aside: PathBuf = quarantine.path.with_file_name(format!("{}.{number:020}.aside", place.namespace));
            match self.disk.link(&quarantine.path, &aside) {
                Ok(()) => return self.sync_private_above(&aside),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(_) => {
                    self.disk.copy(&quarantine.path, &aside).map_err(Error::disk("set aside as", &aside))?;
                    return self.sync_private_above(&aside);
                }
            }
        }
    }

    fn forget_quarantine(&self, place: &Place) -> Result<(), Error> {
        let removed = self.quarantines.lock().remove(place);
        self.turn.exclusive(|writer| writer.appender.set_quarantined(place, None));
        if let Some(quarantine) = removed {
            self.disk.remove(&quarantine.path).map_err(Error::disk("remove", &quarantine.path))?;
        }
        Ok(())
    }
}

fn parses(place: &Place, bytes: &[u8], found: Option<Fingerprint>) -> Result<(), Error> {
    match json::load_object(bytes, &mut |_, _| {}) {
        Err(error) if found.is_some() => {
            Err(cannot(place, &format!("{}; mend it by hand, or choose another way", Why::NotJson(error))))
        }
        _ => Ok(()),
    }
}

fn cannot(place: &Place, reason: &str) -> Error {
    Error::CannotRepair { place: place.to_string(), reason: reason.to_owned() }
}
