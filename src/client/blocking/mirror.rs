//! A namespace in this process's own memory, brought up to date by whoever reads it.

use std::time::{Duration, Instant};

use commonhold_proto::Seq;

use super::{Error, Namespace, Value, Watch, WatchEvent, WatchOptions};
use crate::client::connect::Search;
use crate::client::mirrored::{Mirrored, is_gap};

/// All records of a namespace in this process: [`get_all`](Namespace::get_all) once, and a [`Watch`] from there.
///
/// Reading it costs no call. It has no thread of its own: what was written meanwhile is taken over by
/// [`refresh`](Self::refresh) and [`wait_for`](Self::wait_for), and it is as it was until one of them is called. Where something cannot be told
/// any more it reads all records again, and [`resyncs`](Self::resyncs) counts that.
///
/// ```no_run
/// # let client = commonhold::blocking::Client::connect("rag_storage")?;
/// let status = client.namespace("doc_status")?;
/// let mut mirror = client.mirror(&status)?;
/// let written = status.put("doc-1", "done")?;
/// mirror.wait_for(written.seq, std::time::Duration::from_secs(5))?;
/// assert_eq!(mirror.get("doc-1").map(|value| value.text()), Some("\"done\""));
/// # Ok::<(), commonhold::blocking::Error>(())
/// ```
#[derive(Debug)]
pub struct Mirror {
    namespace: Namespace,
    records: Mirrored,
    watch: Watch,
    resyncs: u64,
    /// What it holds may lack something that cannot be told any more.
    is_stale: bool,
    /// For a daemon to read them from.
    search: Search,
}

impl Mirror {
    pub(super) fn new(namespace: Namespace) -> Result<Self, Error> {
        let watch = Watch::new(namespace.clone(), WatchOptions::new());
        let (records, search) = (Mirrored::default(), Search::default());
        let mut mirror = Self { namespace, records, watch, resyncs: 0, is_stale: true, search };
        mirror.read_all(None)?;
        Ok(mirror)
    }

    /// Reads all records, if there is a daemon by this deadline; says whether it has.
    fn read_all(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        let mut records = Mirrored::default();
        let mut all = self.namespace.get_all();
        if !all.connect(&mut self.search, deadline)? {
            return Ok(false);
        }
        for entry in all.by_ref() {
            records.add(&entry?);
        }
        let seq = all.seq().unwrap_or_default();
        records.is_as_of(seq);
        self.records = records;
        self.watch = Watch::new(self.namespace.clone(), WatchOptions::new().after(seq));
        self.is_stale = false;
        Ok(true)
    }

    /// Takes over what has arrived, without waiting for more. Where all records have to be read again it waits for them, and not
    /// for a daemon.
    ///
    /// # Errors
    /// As for [`Watch::next_timeout`] and any read; what it holds is as it was, and the next call tries again.
    pub fn refresh(&mut self) -> Result<(), Error> {
        while self.step(Duration::ZERO)? {}
        Ok(())
    }

    /// Waits until it has seen this write of the namespace, or a later one. A write that changed nothing is never seen.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after `timeout`, and as for any read; the next call goes on.
    pub fn wait_for(&mut self, seq: Seq, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        while self.seq() < seq {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.step(left)? && left.is_zero() {
                return Err(Error::TimedOut { waited: timeout, waiting_for: "a write to be told" });
            }
        }
        Ok(())
    }

    /// Takes one event over, if it comes in time; says whether something was done.
    fn step(&mut self, time: Duration) -> Result<bool, Error> {
        if self.is_stale {
            let is_read = self.read_all(Some(Instant::now() + time))?;
            self.resyncs += u64::from(is_read);
            return Ok(is_read);
        }
        match self.watch.next_timeout(time) {
            Ok(Some(WatchEvent::Changes(set))) => self.records.apply(set),
            Ok(Some(WatchEvent::Lagged { .. })) => self.is_stale = true,
            Ok(None) => {
                self.records.is_as_of(self.watch.through().unwrap_or_default());
                return Ok(false);
            }
            Err(error) if is_gap(&error) => self.is_stale = true,
            Err(error) => {
                // What has ended tells nothing more: the next call begins anew.
                self.is_stale = self.watch.is_over();
                return Err(error);
            }
        }
        Ok(true)
    }

    /// The value of a key, as far as the mirror has seen.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.records.get(key)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records, in insertion order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.records.iter()
    }

    /// The last write that it has seen.
    pub fn seq(&self) -> Seq {
        self.records.seq()
    }

    /// How often all records had to be read again since it was made.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }
}
