//! The journal: one stream of records, in the order of their Seqs, that says what was written before any file does.
//!
//! It lies in segments under `.commonhold/journal/`. [`segment`] and [`record`] own the bytes, [`payload`] and
//! [`table`] what they mean, [`outcomes`] what became of each client's last writes, [`appender`] writes, [`successor`] begins the next segment and [`releasing`] lets go of old ones, [`sync`] knows how far the platter has got, [`chain`] reads what an
//! earlier owner left and tells an interrupted write from damage, and [`opening`] begins the next segment, or [`reading`] takes what is there and begins none.
//!
//! What it promises: when [`Appender::finish`] has returned with [`Reach::System`], a killed process loses nothing of the
//! group; when [`Progress::sync_through`] has returned, a power cut neither; and what a crash takes is always a suffix.

mod appender;
mod bytes;
mod chain;
mod extent;
mod founding;
mod header;
mod headers;
mod history;
#[cfg(any(test, feature = "fuzzing"))]
mod hostile;
mod losses;
mod numbers;
mod opening;
mod outcomes;
mod payload;
mod quarantine;
mod reading;
mod ready;
mod record;
mod releasing;
mod room;
mod segment;
mod shrink;
mod successor;
mod sync;
mod table;
mod telling;
mod traces;

pub(crate) use appender::{Appender, Reach, Spare};
pub(crate) use chain::{Range, Reading, Tail, for_each_effect};
pub(crate) use extent::Extent;
pub(crate) use founding::continue_journal_or_wait;
pub(crate) use headers::is_segment;
pub(crate) use history::Before;
#[cfg(any(test, feature = "fuzzing"))]
pub use hostile::{HostileJournal, seal};
pub(crate) use losses::Losses;
pub(crate) use numbers::Numbers;
pub(crate) use opening::{Fresh, OpenJournal, mark_if_not_begun, rescue_journal};
pub use outcomes::Earlier;
pub(crate) use outcomes::{Outcome, Outcomes, Recall};
pub(crate) use payload::{
    EFFECT_BYTES, EffectKind, EffectRef, PLACE_BYTES, WRITE_BYTES, WriteHead, encode_drop, encode_write,
};
pub(crate) use quarantine::{Contents, Quarantine, Wanted, gather};
pub(crate) use reading::read_journal;
pub(crate) use ready::Ready;
pub(crate) use record::Kind;
pub(crate) use releasing::Releasable;
pub(crate) use sync::Progress;
pub(crate) use table::{Entry, Fingerprint, Known};
pub(crate) use telling::{Stretch, Teller};
pub(crate) use traces::{Lost, Traces};

/// How far above the Seqs given out the ceiling is set: at each start, and again when half of it is used up.
const CEILING_STEP: u64 = 1 << 32;
