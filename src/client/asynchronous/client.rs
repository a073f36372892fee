//! What concerns the whole store: connecting, names, writes over several namespaces, commit, flush, status, stop.

use std::path::Path;
use std::sync::Arc;

use commonhold_proto::{NameError, Namespace as Name, NamespaceInfo, Place, Seq, SessionInfo, Verb};
use commonhold_proto::{Workspace as WorkspaceName, WorkspaceInfo};

use super::session::Session;
use super::{
    Batch, CacheStats, ConnectOptions, Error, FlushOptions, Flushed, Mirror, Namespace, OpenOptions, Pending, Written,
};
use crate::client::core::Reply;
use crate::client::{read, verbs};

/// A connection to the daemon of one store: one session. Clones share it, between tasks and threads too.
///
/// A child that the process forks may use it, too: there, it is a session of its own, made at its first call.
#[derive(Clone, Debug)]
pub struct Client {
    /// That of the process which connected.
    inherited: Arc<Session>,
}

impl Client {
    /// Connects to the daemon that serves the store in `dir`, and starts one where there is none, with the default
    /// [`OpenOptions`]. As [`blocking::Client::open`](crate::blocking::Client::open).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// let client = commonhold::Client::open("rag_storage").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotStarted`] with the reason; otherwise as for [`connect`](Self::connect).
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(dir, OpenOptions::new()).await
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_with(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, Error> {
        Ok(Self { inherited: Arc::new(Session::open(dir.as_ref(), options).await?) })
    }

    /// Connects to the daemon that serves the store in `dir`, with the default [`ConnectOptions`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// use commonhold::Client;
    /// match Client::connect("rag_storage").await {
    ///     Ok(client) => println!("{}", client.status().await?),
    ///     Err(error) if error.is_no_daemon() => println!("start one: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoDaemon`] at once if nobody serves it. [`Error::Fault`] with
    /// [`Fault::OtherStore`](super::Fault::OtherStore) if `dir` is a copy of the store that the daemon owns, or with
    /// [`Fault::Version`](super::Fault::Version). [`Error::ForeignDaemon`] if another user listens there.
    /// [`Error::TimedOut`], [`Error::Lost`], [`Error::Protocol`] or [`Error::Unreachable`] if the handshake fails.
    pub async fn connect(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::connect_with(dir, ConnectOptions::new()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn connect_with(dir: impl AsRef<Path>, options: ConnectOptions) -> Result<Self, Error> {
        Ok(Self { inherited: Arc::new(Session::connect(dir.as_ref(), options).await?) })
    }

    /// The session of this process; a forked child has one of its own.
    pub(super) fn session(&self) -> &Arc<Session> {
        self.inherited.of_this_process()
    }

    pub(super) async fn call(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = self.session();
        session.call(verb, session.options().timeout).await
    }

    /// For what takes the time of the disk and of the amount of data.
    pub(super) async fn call_long(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = self.session();
        session.call(verb, session.options().flush_timeout).await
    }

    /// A namespace in the store's own directory. Nothing is sent: it comes to be with its first record.
    ///
    /// # Errors
    /// [`Error::Name`] if the name breaks its rule.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Error> {
        Ok(self.at(Place { workspace: WorkspaceName::root(), namespace: Name::new(name)? }))
    }

    /// A workspace: a subdirectory with namespaces of its own. The empty name is the store's own directory.
    ///
    /// # Errors
    /// [`Error::Name`] if the name breaks its rule.
    pub fn workspace(&self, name: &str) -> Result<Workspace, Error> {
        Ok(Workspace { client: self.clone(), name: WorkspaceName::new(name)? })
    }

    /// All records of a namespace, in this process and kept current; see [`Mirror`].
    ///
    /// # Errors
    /// As for [`Namespace::get_all`].
    pub async fn mirror(&self, namespace: &Namespace) -> Result<Mirror, Error> {
        Mirror::new(namespace.clone()).await
    }

    fn at(&self, place: Place) -> Namespace {
        Namespace::new(self.clone(), place)
    }

    /// Writes a batch: all of it, under one Seq, or nothing.
    ///
    /// # Errors
    /// [`Error::Fault`] with the daemon's refusal, after which nothing was done, or
    /// [`Fault::OutcomeUnknown`](super::Fault::OutcomeUnknown). [`Error::OutcomeUnknown`] if time ran
    /// out after a byte was sent, or no daemon that knows what became of it could be reached any more. [`Error::TooLarge`] if it does not fit into a frame. Otherwise it was not
    /// sent: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn write(&self, batch: &Batch) -> Result<Written, Error> {
        read::written(&self.call(batch.to_verb()?).await?)
    }

    /// Sends a batch without waiting for its answer, so that a task can have many in flight.
    ///
    /// It returns when all bytes are sent, which takes as long as the daemon is behind.
    ///
    /// # Errors
    /// As for [`write`](Self::write); those that the daemon answers come from the [`Pending`].
    pub async fn begin(&self, batch: &Batch) -> Result<Pending<Written>, Error> {
        let mut pending = self.begin_now(batch)?;
        pending.sent().await?;
        Ok(pending)
    }

    /// As [`begin`](Self::begin), without keeping to the pace of the daemon.
    pub(super) fn begin_now(&self, batch: &Batch) -> Result<Pending<Written>, Error> {
        let session = self.session();
        Ok(Pending::new(session.begin(batch.to_verb()?, session.options().timeout)?, read::written))
    }

    /// Puts every write that was acknowledged before on the platter; returns the last Seq that this covers.
    ///
    /// It is repeated if the connection is lost. A daemon that was killed in between lost what was acknowledged with
    /// less than [`Durability::Buffered`](super::Durability::Buffered); [`restarts`](Self::restarts) tells.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::Unavailable`](super::Fault::Unavailable) or
    /// [`Fault::OutcomeUnknown`](super::Fault::OutcomeUnknown) if the disk fails.
    pub async fn commit(&self) -> Result<Seq, Error> {
        read::committed(&self.call_long(Verb::Commit).await?)
    }

    /// Commits, and brings the JSON files of all namespaces up to date.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushFailed`](super::Fault::FlushFailed) or
    /// [`Fault::FlushLockTimeout`](super::Fault::FlushLockTimeout): nothing is lost, flush again.
    pub async fn flush(&self) -> Result<Flushed, Error> {
        self.flush_with(FlushOptions::default()).await?.ok_or_else(|| Error::protocol("it did not wait for the flush"))
    }

    /// As [`flush`](Self::flush), with options; `None` if it was not to be waited for.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub async fn flush_with(&self, options: FlushOptions) -> Result<Option<Flushed>, Error> {
        read::flushed(&self.call_long(verbs::flush(None, options)).await?)
    }

    /// How the daemon is: a JSON object, whose members `docs/cli.md` describes.
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn status(&self) -> Result<String, Error> {
        read::status(&self.call(Verb::Status).await?)
    }

    /// The namespaces of the store, loaded or not, workspace by workspace.
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>, Error> {
        read::namespaces(&self.call(Verb::Namespaces).await?)
    }

    /// The workspaces of the store, its own directory (the empty name) first.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// for workspace in client.workspaces().await? {
    ///     println!("{:?}: {} namespaces, {} loaded", workspace.workspace, workspace.namespaces, workspace.loaded);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceInfo>, Error> {
        read::workspaces(&self.call(Verb::Workspaces).await?)
    }

    /// Who is connected to the daemon, this client among them; oldest first.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// for session in client.sessions().await? {
    ///     println!("{}: {} requests of process {:?}", session.id, session.requests, session.pid);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, Error> {
        read::sessions(&self.call(Verb::Sessions).await?)
    }

    /// Ends another client's session, and so frees what a hung worker holds. `id` is its number in
    /// [`sessions`](Self::sessions).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), commonhold::Error> {
    /// # let client = commonhold::Client::connect("rag_storage").await?;
    /// let hung = client.sessions().await?.into_iter().find(|session| session.pid == Some(4711));
    /// if let Some(session) = hung {
    ///     client.end_session(session.id).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::NoSuchSession`](super::Fault::NoSuchSession); [`Error::OutcomeUnknown`] if the
    /// connection was lost before the answer came.
    pub async fn end_session(&self, id: u64) -> Result<(), Error> {
        read::done(&self.call(Verb::EndSession { id }).await?)
    }

    /// Asks the daemon whether it lives.
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub async fn ping(&self) -> Result<(), Error> {
        read::done(&self.call(Verb::Ping).await?)
    }

    /// Flushes everything and ends the daemon, for all its clients; returns when all files are up to date.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushFailed`](super::Fault::FlushFailed); [`Error::OutcomeUnknown`] if the
    /// connection was lost before the answer came.
    pub async fn stop(&self) -> Result<(), Error> {
        read::done(&self.call_long(Verb::Stop).await?)
    }

    /// What this client keeps of the values it has read, and how often that has spared a question. Its clones share it.
    pub fn cache_stats(&self) -> CacheStats {
        self.session().near().stats()
    }

    /// The boot number of the daemon that was last connected to: another one after each of its starts.
    pub fn boot(&self) -> u64 {
        self.session().boot()
    }

    /// How often this client, when it made a lost connection again, found that the daemon had been restarted.
    pub fn restarts(&self) -> u64 {
        self.session().restarts()
    }
}

/// A subdirectory of the store with namespaces of its own, as one tenant's.
#[derive(Clone, Debug)]
pub struct Workspace {
    client: Client,
    name: WorkspaceName,
}

impl Workspace {
    /// Its name; empty for the store's own directory.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// A namespace of this workspace. Nothing is sent: it comes to be with its first record.
    ///
    /// # Errors
    /// [`Error::Name`] if the name breaks its rule.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Error> {
        let namespace = Name::new(name).map_err(|error: NameError| Error::Name(error))?;
        Ok(self.client.at(Place { workspace: self.name.clone(), namespace }))
    }
}
