//! Every record of a namespace as they all were at one moment, without holding all of them.

use commonhold_proto::{Seq, Verb};

use super::own_line::OwnLine;
use super::{Entry, Error, Namespace};
use crate::client::parts::{Arriving, Next};

/// The records of a namespace in insertion order, all as they were at one moment, given by [`next`](Self::next).
///
/// It has a connection of its own, made when the first record is asked for, and ended when it is dropped; so a caller
/// that takes its time holds up nobody, and memory holds no more than a part of the records. It sees every write that
/// was acknowledged before it began. An error ends it, and voids what came before: the records were not all.
#[derive(Debug)]
#[must_use = "nothing is fetched before the first record is asked for"]
pub struct GetAll {
    namespace: Namespace,
    values: bool,
    arriving: Arriving,
    /// None before the first record was asked for, and when no more will come.
    line: Option<OwnLine>,
}

impl GetAll {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, values: true, arriving: Arriving::default(), line: None }
    }

    /// Keys without values, which spares sending them: [`Entry::value`] is empty.
    pub fn keys_only(mut self) -> Self {
        self.values = false;
        self
    }

    /// The last write that the records have seen; none before the first part has arrived.
    pub fn seq(&self) -> Option<Seq> {
        self.arriving.seq()
    }

    /// The next record; none is the end. Dropping its future loses nothing.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let mut all = client.namespace("full_docs")?.get_all();
    /// while let Some(entry) = all.next().await {
    ///     println!("{}", entry?.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Fault::SnapshotExpired`](super::Fault::SnapshotExpired) if too much was changed meanwhile,
    /// [`Error::BrokeOff`] if the connection was lost; read all again.
    pub async fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            let next = self.arriving.next();
            if self.arriving.is_over() {
                self.line = None;
            }
            match next {
                Next::Give(given) => return Some(given),
                Next::End => return None,
                Next::Read => {
                    if let Err(error) = self.read().await {
                        self.line = None;
                        return Some(Err(self.arriving.end(error)));
                    }
                }
            }
        }
    }

    /// Reads once from the connection, which it makes before if there is none.
    async fn read(&mut self) -> Result<(), Error> {
        let session = self.namespace.client().session();
        let up = match &mut self.line {
            Some(up) => up,
            none => {
                let verb = Verb::GetAll { space: self.namespace.target().space(), values: self.values };
                let up =
                    OwnLine::over(session.open_stream(verb).await?).map_err(|e| session.broke_off(&e.to_string()))?;
                none.insert(up)
            }
        };
        if !up.is_ours() {
            return Err(Error::Forked);
        }
        let full = up.buffer.len();
        let read = up.stream.read_with(|stream| stream.read_now(&mut up.buffer).map(|read| (read, read == full)));
        let read = match session.options().timeout {
            None => read.await,
            Some(timeout) => tokio::time::timeout(timeout, read)
                .await
                .map_err(|_| Error::TimedOut { waited: timeout, waiting_for: "the next part of the records" })?,
        };
        match read {
            Ok(0) => Err(session.broke_off("the daemon closed the connection")),
            Ok(read) => self.arriving.receive(&up.buffer[..read]),
            Err(e) => Err(session.broke_off(&e.to_string())),
        }
    }
}
