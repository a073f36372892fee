//! Why a namespace cannot be opened: told to whoever asks for it, to `check`, which adds what can be done, and to
//! `repair`, which does it.

use std::fmt;
use std::path::PathBuf;

use commonhold_proto::Seq;

use super::words::span_of;
use crate::json::FileError;

/// A namespace that would not open. Its file and its waiting records are as they were.
#[derive(Clone, Debug)]
pub struct Closing {
    /// What is wrong.
    pub why: Why,
    /// The first write that its file may lack and that can be read, and the last one.
    pub waiting: Option<(Seq, Seq)>,
    /// Between which sequence numbers there were writes that are in neither journal nor quarantine any more: the last was one.
    pub lost: Option<(Seq, Seq)>,
}

/// What is wrong with a namespace.
#[derive(Clone, Debug)]
pub enum Why {
    /// Its file is not one JSON object.
    NotJson(FileError),
    /// Its file is a symbolic link.
    Link {
        /// Where it leads.
        target: PathBuf,
    },
    /// Its workspace is a symbolic link.
    LinkedWorkspace {
        /// Where it leads.
        target: PathBuf,
    },
    /// A file or a device stands where its workspace's directory should be.
    NoWorkspace {
        /// The workspace's path.
        path: PathBuf,
    },
    /// A directory or a device has its file's name.
    NotAFile,
    /// Another namespace of its workspace has a file or waiting records, and a name that differs only in letter case.
    NameClash {
        /// The other one's name.
        existing: String,
    },
    /// Records wait, and the file that is there is not the one they belong to.
    OtherFile,
    /// Nothing waits, and its file is not what was written, although its size and time say that nobody wrote to it since.
    Decayed,
    /// Records wait, and the file they belong to is gone.
    Missing,
    /// Journal segments with writes that the file lacks are gone.
    Gap {
        /// The file holds every write up to this one; none if there is no file.
        cut: Option<Seq>,
        /// Writes up to this one were in the segments.
        through: Seq,
    },
    /// Its quarantine file is damaged.
    Quarantine {
        /// The quarantine file.
        file: PathBuf,
        /// From which byte on.
        offset: u64,
        /// What shows it.
        reason: &'static str,
    },
    /// Its quarantine file is of a journal that is gone.
    OtherJournal {
        /// The quarantine file.
        file: PathBuf,
    },
}

impl Closing {
    /// What is wrong, without what waits and what can be done.
    pub fn what(&self) -> String {
        self.why.to_string()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(f, "its file is not a JSON object: {error}"),
            Self::Link { target } => {
                write!(f, "its file is a symbolic link to {}: put the file itself there", target.display())
            }
            Self::LinkedWorkspace { target } => {
                write!(f, "its workspace is a symbolic link to {}: put the directory itself there", target.display())
            }
            Self::NoWorkspace { path } => write!(
                f,
                "{} is a file, where the directory of its workspace should be: move that file out of the store, and put the directory there",
                path.display()
            ),
            Self::NotAFile => f.write_str("what has its file's name is not a regular file"),
            Self::NameClash { existing } => write!(
                f,
                "its name differs only in letter case from that of {existing}, which has a file or waiting records too, so neither is opened: while no daemon runs, move the file kv_store_{existing}.json (or its own) out of the store, or give it another name, and start again"
            ),
            Self::OtherFile => f.write_str("its file is not the one that the journal's records for it belong to"),
            Self::Decayed => f.write_str(
                "its file has other bytes than were written, although its size and time of change say that nobody has written to it since: the disk has changed them",
            ),
            Self::Missing => f.write_str("its file is missing, the one that the journal's records for it belong to"),
            Self::Gap { cut: Some(cut), through } => write!(
                f,
                "its file holds the writes up to sequence number {cut}, but the journal segments or the quarantine file with later ones, up to {through}, are missing"
            ),
            Self::Gap { cut: None, through } => write!(
                f,
                "it has no file, and the journal segments or the quarantine file with its writes up to sequence number {through} are missing"
            ),
            Self::Quarantine { file, offset, reason } => {
                write!(
                    f,
                    "the file with its waiting records, {}, is damaged at byte {offset}: {reason}",
                    file.display()
                )
            }
            Self::OtherJournal { file } => {
                write!(f, "the journal that its waiting records in {} come from is gone", file.display())
            }
        }
    }
}

fn wait(first: Seq, last: Seq) -> String {
    let (noun, verb) = if first == last { ("write", "waits and is kept") } else { ("writes", "wait and are kept") };
    format!("its {noun} with {} {verb}", span_of(first, last))
}

/// `write with sequence number 9, and of any other from 4 on,`: of what is gone only the last one is known.
fn write_and_others(first: Seq, last: Seq) -> String {
    let one = format!("write with sequence number {last}");
    if first == last { one } else { format!("{one}, and of any other from {first} on,") }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        match (self.waiting, self.lost) {
            (None, None) => Ok(()),
            (Some((first, last)), None) => write!(f, " ({})", wait(first, last)),
            (waiting, Some((from, to))) => {
                write!(f, " (of its {} nothing can be read any more", write_and_others(from, to))?;
                match waiting.filter(|(_, last)| *last > to) {
                    Some((first, last)) => write!(f, "; {})", wait(first.max(to.next()), last)),
                    None => f.write_str(")"),
                }
            }
        }
    }
}
