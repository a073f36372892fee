//! Watching a namespace: what was changed in it after some Seq, write by write, none missing, none twice.
//!
//! A watcher has a place, the last write that it was told. While that is not below the floor of the namespace's
//! [`Channel`] it reads there; below it, from the journal, until it meets the channel again:
//!
//! ```text
//!   journal   … 71  74  75  80 | 81  86  88     as far as it counted under the turn
//!   channel                 (80) 81  86  88  90 …   floor 80: all above it is there
//! ```
//!
//! Both say the same of a write, so the seam is only a comparison: a place at 80 or above goes on in the channel. What the
//! journal is asked for is fixed under the turn, together with the last write there is then, so that one who has read all of it stands
//! there, whatever records of other namespaces lie between. Nothing waits for a watcher: what it
//! needs may leave the channel, and the journal, and then it is told so.
//!
//! Where one begins decides what can be told:
//!
//! | after | answer |
//! |---|---|
//! | a Seq that was not given out yet | [`Error::NotYet`] |
//! | the namespace's last write, as it is now | goes on |
//! | of an earlier start, and a crash took it | [`Error::Rewound`] |
//! | older than the file that was loaded, which somebody else had written | [`Error::Gone`] |
//! | older than the journal, and something may have followed it there | [`Error::Gone`] |
//!
//! Of a Seq of an earlier start that is older than the journal nobody can say whether a crash took it: it is `Gone`, unless it
//! is the last write to the namespace that the journal had. A volatile namespace has its channel alone.

use std::sync::Arc;

use commonhold_proto::{Place, Seq};

use super::error::Error;
use super::feed::{Channel, TellChange, Told};
use super::journal::{Before, Stretch, Teller};
use super::map::Record;
use super::seeded_fault::is_seeded;
use super::store::Store;
use super::table::Table;
use super::writer::Writer;

/// How many writes are taken from the channel at once, and read from the journal before others get their turn.
const WRITES_AT_ONCE: usize = 256;
/// Who has found so often in a row that a file of the journal is missing gives up.
const MOST_MISSED: u32 = 3;

/// One who watches.
pub struct Watch {
    store: Arc<Store>,
    /// Held, so that the namespace stays in memory.
    table: Arc<Table>,
    channel: Arc<Channel>,
    prefix: String,
    /// Everything through this write was told, or is of other keys.
    at: Seq,
    leg: Option<Leg>,
    /// Where the last leg ended.
    reader: Option<Teller>,
    /// How often a file was not there although the journal has it.
    missed: u32,
}

/// A piece of the journal that is read.
struct Leg {
    /// What follows, the next one last.
    stretches: Vec<Stretch>,
    teller: Option<Teller>,
    /// Who has read all of it has seen everything through this write.
    through: Seq,
    /// A file was not there although the journal has it.
    missed: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// These writes; perhaps none, although more may follow at once: of other keys there is nothing to tell.
    Told(Vec<Arc<Told>>),
    /// Some writes are not kept any more.
    Lagged {
        /// The first of which nothing is told.
        lost_from: Seq,
        /// The first that is told again.
        next: Seq,
    },
    /// Nothing more, until something is written.
    Nothing,
}

impl Store {
    /// Begins to watch a namespace: everything after the write `after`, or from now on, that changes keys that begin with `prefix`.
    ///
    /// It waits for its turn, and reads nothing.
    ///
    /// # Errors
    /// [`Error::NotYet`], [`Error::Gone`], [`Error::Rewound`]; see the table at the head of this file.
    pub fn watch(self: &Arc<Self>, table: &Arc<Table>, prefix: &str, after: Option<Seq>) -> Result<Watch, Error> {
        let mut table = Arc::clone(table);
        let (channel, at) = if table.is_volatile() {
            loop {
                let order = table.order.lock();
                if !table.is_gone() {
                    break self.begin_volatile(&table, after)?;
                }
                // Dropped meanwhile: who writes to the one that follows it has another order.
                drop(order);
                let next = self.volatile(table.place())?;
                table = next;
            }
        } else {
            self.turn.exclusive(|writer| self.begin_persistent(writer, &table, after))?
        };
        let (store, prefix) = (Arc::clone(self), prefix.to_owned());
        Ok(Watch { store, table, channel, prefix, at, leg: None, reader: None, missed: 0 })
    }

    fn begin_persistent(
        &self,
        writer: &Writer,
        table: &Table,
        after: Option<Seq>,
    ) -> Result<(Arc<Channel>, Seq), Error> {
        let (last, place) = (table.last(), table.place());
        let Some(after) = after.filter(|after| *after != last) else {
            return Ok((self.shared.feed.open(table, last), last));
        };
        self.check_given(after)?;
        let history = writer.appender.history();
        let taken_as_it_was = table.taken_at().max(history.loaded(place));
        if after < taken_as_it_was {
            return Err(Error::Gone { oldest: taken_as_it_was.next() });
        }
        let left = self.last_gone(writer, place);
        if history.is_earlier(after) {
            match history.look_up(after) {
                Before::Kept if is_seeded("watch-gone") => return Err(Error::Gone { oldest: last.next() }),
                Before::Kept => {}
                Before::Gone if after == left => {}
                Before::Gone => return Err(Error::Gone { oldest: history.kept_above().next() }),
                Before::Lost(to) => return Err(Error::Rewound { to }),
            }
        } else if after < left {
            return Err(Error::Gone { oldest: history.kept_above().max(left).next() });
        }
        Ok((self.shared.feed.open(table, last), after))
    }

    fn begin_volatile(&self, table: &Table, after: Option<Seq>) -> Result<(Arc<Channel>, Seq), Error> {
        let last = table.last();
        after.map_or(Ok(()), |after| self.check_given(after))?;
        let channel = self.shared.feed.open(table, last);
        // Of one that was dropped before, the channel may have more.
        let (floor, newest) = (channel.floor(), channel.newest().max(last));
        let Some(after) = after.filter(|after| *after != newest) else {
            return Ok((channel, newest));
        };
        // What an earlier start had is not there any more, whether anything was written to it since or not.
        let is_earlier = self.opening.last > Seq::ZERO && after <= self.opening.last;
        if after < floor || is_earlier {
            channel.leave();
            return Err(Error::Gone { oldest: floor.max(self.opening.last).next() });
        }
        Ok((channel, after))
    }

    fn check_given(&self, asked: Seq) -> Result<(), Error> {
        let latest = self.numbers.last();
        if asked > latest { Err(Error::NotYet { asked, latest }) } else { Ok(()) }
    }

    /// The last write to the namespace in segments that have left the journal.
    fn last_gone(&self, writer: &Writer, place: &Place) -> Seq {
        writer.appender.last_released(place).max(self.gone.get(place).copied().unwrap_or(Seq::ZERO))
    }

    /// Says whom to tell when something was written to a namespace that is watched; [`news`](Self::news) says to which. Writers do
    /// it, after their turn, so it must return at once.
    pub fn ring_by(&self, bell: impl Fn() + Send + Sync + 'static) {
        self.shared.feed.ring_by(Box::new(bell));
    }

    /// About how many bytes of changes are kept for those who watch.
    pub fn kept_for_watches(&self) -> u64 {
        self.shared.feed.kept_bytes()
    }

    /// The numbers of the channels ([`Watch::channel`]) in which something came since the last call.
    pub fn news(&self) -> Vec<u64> {
        self.shared.feed.take_news().iter().map(|channel| channel.number()).collect()
    }
}

impl Watch {
    /// Everything through this write was told: where to go on after it was lost.
    pub fn through(&self) -> Seq {
        self.at
    }

    /// Which channel it listens to: those of one namespace have the same.
    pub fn channel(&self) -> u64 {
        self.channel.number()
    }

    /// Whether what comes next is read from the disk.
    pub fn needs_the_disk(&self) -> bool {
        self.leg.is_some() || !self.table.is_volatile() && self.at < self.channel.floor()
    }

    /// What comes next, about so many bytes of it. Waits for nobody but, where it [needs the disk](Self::needs_the_disk), for the
    /// turn and the disk.
    ///
    /// # Errors
    /// [`Error::Disk`], [`Error::Full`], [`Error::Damage`]: nothing was lost, and it may be tried again.
    pub fn next(&mut self, bytes: usize) -> Result<Next, Error> {
        let at = self.at;
        // What was read of the journal before the failure is read again.
        self.go_on(bytes).inspect_err(|_| (self.at, self.leg, self.reader) = (at, None, None))
    }

    fn go_on(&mut self, bytes: usize) -> Result<Next, Error> {
        if self.leg.is_none() {
            match self.channel.after(self.at, WRITES_AT_ONCE) {
                Ok(told) => {
                    self.reader = None;
                    return Ok(self.take_from_channel(&told, bytes));
                }
                Err(floor) if self.table.is_volatile() => return Ok(self.lag(floor)),
                Err(_) => {}
            }
            if let Some(lagged) = self.begin_leg()? {
                return Ok(lagged);
            }
        }
        self.take_from_journal(bytes)
    }

    fn lag(&mut self, to: Seq) -> Next {
        let lost_from = self.at.next();
        self.at = to;
        Next::Lagged { lost_from, next: to.next() }
    }

    fn take_from_channel(&mut self, told: &[Arc<Told>], bytes: usize) -> Next {
        if told.is_empty() {
            return Next::Nothing;
        }
        let (mut out, mut taken) = (Vec::new(), 0);
        for told in told {
            if taken >= bytes {
                break;
            }
            self.at = told.seq;
            let is_all = told.changes.iter().all(|change| change.touches(&self.prefix));
            let told = if is_all { Some(Arc::clone(told)) } else { self.under_prefix(told.seq, &told.changes) };
            taken += told.as_ref().map_or(0, |told| told.changes.iter().map(TellChange::bytes).sum());
            out.extend(told);
        }
        Next::Told(out)
    }

    fn under_prefix(&self, seq: Seq, changes: &[TellChange]) -> Option<Arc<Told>> {
        let changes: Box<[_]> = changes.iter().filter(|change| change.touches(&self.prefix)).cloned().collect();
        (!changes.is_empty()).then(|| Arc::new(Told { seq, changes }))
    }

    /// Asks what there is in the journal. It may be that what is needed is not there any more.
    fn begin_leg(&mut self) -> Result<Option<Next>, Error> {
        if self.missed > MOST_MISSED {
            let reason = "a segment of the journal is not there any more, although nobody has let go of it".to_owned();
            return Err(Error::Unavailable { reason });
        }
        let (store, table) = (Arc::clone(&self.store), Arc::clone(&self.table));
        let asked = store.turn.exclusive(|writer| {
            let left = store.last_gone(writer, table.place());
            let history = writer.appender.history();
            if left > self.at || history.may_lack(self.at) {
                return Err(Ok(history.kept_above().max(left)));
            }
            let through = table.last();
            match writer.appender.stretches(table.place(), self.at) {
                Ok(stretches) => Ok((stretches, through)),
                Err(error) => Err(Err(error)),
            }
        });
        match asked {
            Ok((mut stretches, through)) => {
                stretches.reverse();
                self.leg = Some(Leg { stretches, teller: None, through, missed: false });
                Ok(None)
            }
            Err(Ok(kept_above)) => Ok(Some(self.lag(kept_above))),
            Err(Err(error)) => Err(error),
        }
    }

    fn take_from_journal(&mut self, bytes: usize) -> Result<Next, Error> {
        let Some(mut leg) = self.leg.take() else { return Ok(Next::Told(Vec::new())) };
        let (mut out, mut taken, mut read) = (Vec::new(), 0, 0);
        while taken < bytes && read < WRITES_AT_ONCE {
            let Some(teller) = self.teller(&mut leg)? else { break };
            read += 1;
            let (mut changes, prefix, mut touches) = (Vec::new(), &self.prefix, false);
            let seq = teller.next(self.table.place(), |effect| {
                touches = true;
                if effect.key.starts_with(prefix) || effect.key.is_empty() {
                    TellChange::add(&mut changes, effect.kind, Some(Record::new(effect.key, effect.value)));
                }
            })?;
            let Some(seq) = seq else {
                self.reader = leg.teller.take();
                continue;
            };
            if !touches || seq <= self.at {
                continue;
            }
            (self.at, self.missed) = (seq, 0);
            changes.retain(|change: &TellChange| change.touches(&self.prefix));
            if !changes.is_empty() {
                taken += changes.iter().map(TellChange::bytes).sum::<usize>();
                out.push(Arc::new(Told { seq, changes: changes.into_boxed_slice() }));
            }
        }
        let is_read = leg.teller.is_none() && leg.stretches.is_empty();
        if is_read && !leg.missed {
            let seam = if is_seeded("watch-seam") { self.channel.newest() } else { leg.through };
            self.at = self.at.max(seam);
        }
        self.missed += u32::from(leg.missed);
        if !out.is_empty() {
            // Its client may be long in taking that.
            leg.teller.iter_mut().chain(&mut self.reader).for_each(Teller::rest);
        }
        // One that missed a file asks again what there is; so does one that has read all, if it still is behind.
        self.leg = (!is_read).then_some(leg);
        Ok(Next::Told(out))
    }

    /// Where to read on; none at the end of the leg.
    fn teller<'a>(&mut self, leg: &'a mut Leg) -> Result<Option<&'a mut Teller>, Error> {
        while leg.teller.is_none() {
            let Some(stretch) = leg.stretches.pop() else { return Ok(None) };
            leg.teller = match self.reader.take().filter(|reader| reader.is_in(&stretch)) {
                Some(reader) => Some(reader.go_on(stretch)),
                None => Teller::open(&*self.store.disk, stretch)?,
            };
            if leg.teller.is_none() {
                // It has left the journal meanwhile: what is behind it must not be told before that is.
                (leg.missed, leg.stretches) = (true, Vec::new());
            }
        }
        Ok(leg.teller.as_mut())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.channel.leave();
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("table", &self.table).field("at", &self.at).finish_non_exhaustive()
    }
}
