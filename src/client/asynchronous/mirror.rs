//! A namespace in this process's own memory, kept current by a task.

use std::sync::Arc;
use std::time::Duration;

use commonhold_proto::Seq;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{Error, Namespace, Value, WatchEvent, WatchOptions};
use crate::client::mirrored::{Mirrored, is_gap};

/// How long to pause before another try where no daemon can be reached.
const PAUSE: Duration = Duration::from_millis(200);

/// All records of a namespace in this process: [`get_all`](Namespace::get_all) once, and a [`Watch`](super::Watch) from there.
///
/// Reading it costs no call. A task on the runtime keeps it current until the mirror is dropped. Where something cannot be told any more it
/// reads all records again, and [`resyncs`](Self::resyncs) counts that; while no daemon can be reached it tries on, and the mirror is as it
/// was.
///
/// ```no_run
/// # async fn example() -> Result<(), commonhold::Error> {
/// # let client = commonhold::Client::connect("rag_storage").await?;
/// let status = client.namespace("doc_status")?;
/// let mirror = client.mirror(&status).await?;
/// let written = status.put("doc-1", "done").await?;
/// mirror.wait_for(written.seq).await?;
/// assert_eq!(mirror.get("doc-1").map(|value| value.into_text()).as_deref(), Some("\"done\""));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    records: RwLock<Mirrored>,
}

#[derive(Clone, Debug, Default)]
struct State {
    seq: Seq,
    resyncs: u64,
    /// Why it is not current, while it is not.
    trouble: Option<Error>,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mirror {
    pub(super) async fn new(namespace: Namespace) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let seq = shared.read_all(&namespace).await?;
        let (told, state) = watch::channel(State { seq, ..State::default() });
        let kept = Arc::clone(&shared);
        let task = tokio::spawn(async move { kept.keep(&namespace, seq, &told).await }).abort_handle();
        Ok(Self { shared, state, task })
    }

    /// Waits until it has seen this write of the namespace, or a later one. A write that changed nothing is never seen: give it a
    /// time-out of your own where that may be.
    ///
    /// # Errors
    /// What keeps it from being current, as [`Error::NoDaemon`]; it tries on all the same.
    pub async fn wait_for(&self, seq: Seq) -> Result<(), Error> {
        let mut state = self.state.clone();
        let seen = state.wait_for(|state| state.seq >= seq || state.trouble.is_some()).await;
        match seen {
            Ok(state) if state.seq >= seq => Ok(()),
            Ok(state) => Err(state.trouble.clone().unwrap_or(Error::Forked)),
            // Only a runtime that is shut down ends the task while the mirror is there.
            Err(_) => Err(Error::Unreachable { reason: "the runtime that keeps the mirror has ended".to_owned() }),
        }
    }

    /// The value of a key, as far as the mirror has seen.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.shared.records.read().get(key).cloned()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.shared.records.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records in insertion order, as they are at one moment.
    pub fn records(&self) -> Vec<(String, Value)> {
        self.shared.records.read().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()
    }

    /// The last write that it has seen.
    pub fn seq(&self) -> Seq {
        self.state.borrow().seq
    }

    /// How often all records had to be read again since it was made.
    pub fn resyncs(&self) -> u64 {
        self.state.borrow().resyncs
    }
}

impl Shared {
    async fn read_all(&self, namespace: &Namespace) -> Result<Seq, Error> {
        let mut records = Mirrored::default();
        let mut all = namespace.get_all();
        while let Some(entry) = all.next().await {
            records.add(&entry?);
        }
        let seq = all.seq().unwrap_or_default();
        records.is_as_of(seq);
        *self.records.write() = records;
        Ok(seq)
    }

    /// Keeps the records current for ever.
    async fn keep(&self, namespace: &Namespace, mut seq: Seq, told: &watch::Sender<State>) {
        loop {
            self.follow(namespace, seq, told).await;
            seq = loop {
                match self.read_all(namespace).await {
                    Ok(seq) => break seq,
                    Err(error) => {
                        told.send_modify(|state| state.trouble = Some(error));
                        sleep(PAUSE).await;
                    }
                }
            };
            told.send_modify(|state| {
                *state = State { seq, resyncs: state.resyncs + 1, trouble: None };
            });
        }
    }

    /// Takes over what is written, until something is missed.
    async fn follow(&self, namespace: &Namespace, after: Seq, told: &watch::Sender<State>) {
        let mut watch = namespace.watch(WatchOptions::new().after(after));
        loop {
            // Also after a connection was lost: that there is one again is known before anything is told.
            let next = match watch.begin().await {
                Ok(_) => {
                    told.send_if_modified(|state| state.trouble.take().is_some());
                    watch.next().await
                }
                Err(error) => Some(Err(error)),
            };
            match next {
                Some(Ok(WatchEvent::Changes(set))) => {
                    let seq = set.seq;
                    self.records.write().apply(set);
                    told.send_modify(|state| (state.seq, state.trouble) = (seq, None));
                }
                Some(Ok(WatchEvent::Lagged { .. })) | None => return,
                Some(Err(error)) if is_gap(&error) => return,
                Some(Err(error)) => {
                    told.send_modify(|state| state.trouble = Some(error));
                    if watch.is_over() {
                        return;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
