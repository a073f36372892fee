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

/// A connection to the daemon of one store: one session. Clones share it, between threads too.
///
/// A child that the process forks may use it, too: there, it is a session of its own, made at its first call.
#[derive(Clone, Debug)]
pub struct Client {
    /// That of the process which connected.
    inherited: Arc<Session>,
}

impl Client {
    /// Connects to the daemon that serves the store in `dir`, and starts one where there is none, with the default
    /// [`OpenOptions`].
    ///
    /// A daemon that is started runs in the background, in a session of its own: it outlives this process, logs to
    /// `.commonhold/daemon.log`, and ends 10 minutes after its last client. However many processes open a store at once,
    /// one daemon serves it.
    ///
    /// ```no_run
    /// use commonhold::blocking::Client;
    /// let client = Client::open("rag_storage")?;
    /// client.namespace("full_docs")?.put("doc-1", "…")?;
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotStarted`] with the reason: the program was not found, or what it said when it ended. Otherwise as for
    /// [`connect`](Self::connect).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(dir, OpenOptions::new())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, Error> {
        Ok(Self { inherited: Arc::new(Session::open(dir.as_ref(), options)?) })
    }

    /// Connects to the daemon that serves the store in `dir`, with the default [`ConnectOptions`].
    ///
    /// ```no_run
    /// use commonhold::blocking::Client;
    /// match Client::connect("rag_storage") {
    ///     Ok(client) => println!("{}", client.status()?),
    ///     Err(error) if error.is_no_daemon() => println!("start one: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoDaemon`] at once if nobody serves it. [`Error::Fault`] with
    /// [`Fault::OtherStore`](super::Fault::OtherStore) if `dir` is a copy of the store that the daemon owns, or with
    /// [`Fault::Version`](super::Fault::Version). [`Error::ForeignDaemon`] if another user listens there.
    /// [`Error::TimedOut`], [`Error::Lost`], [`Error::Protocol`] or [`Error::Unreachable`] if the handshake fails.
    pub fn connect(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::connect_with(dir, ConnectOptions::new())
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_with(dir: impl AsRef<Path>, options: ConnectOptions) -> Result<Self, Error> {
        Ok(Self { inherited: Arc::new(Session::connect(dir.as_ref(), options)?) })
    }

    /// The session of this process; a forked child has one of its own.
    pub(super) fn session(&self) -> &Arc<Session> {
        self.inherited.of_this_process()
    }

    pub(super) fn call(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = self.session();
        session.call(verb, session.options().timeout)
    }

    /// For what takes the time of the disk and of the amount of data.
    pub(super) fn call_long(&self, verb: Verb<'_>) -> Result<Reply, Error> {
        let session = self.session();
        session.call(verb, session.options().flush_timeout)
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
    pub fn mirror(&self, namespace: &Namespace) -> Result<Mirror, Error> {
        Mirror::new(namespace.clone())
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
    pub fn write(&self, batch: &Batch) -> Result<Written, Error> {
        read::written(&self.call(batch.to_verb()?)?)
    }

    /// Sends a batch without waiting for its answer, so that a thread can have many in flight.
    ///
    /// It returns when all bytes are sent, which takes as long as the daemon is behind; a [`Pipeline`](super::Pipeline) gathers it
    /// instead.
    ///
    /// # Errors
    /// As for [`write`](Self::write); those that the daemon answers come from [`Pending::wait`].
    pub fn begin(&self, batch: &Batch) -> Result<Pending<Written>, Error> {
        let session = self.session();
        let begun = session.begin(batch.to_verb()?, session.options().timeout)?;
        Ok(Pending::new(session, begun, read::written))
    }

    /// Puts every write that was acknowledged before on the platter; returns the last Seq that this covers.
    ///
    /// It is repeated if the connection is lost. A daemon that was killed in between lost what was acknowledged with
    /// less than [`Durability::Buffered`](super::Durability::Buffered); [`restarts`](Self::restarts) tells.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::Unavailable`](super::Fault::Unavailable) or
    /// [`Fault::OutcomeUnknown`](super::Fault::OutcomeUnknown) if the disk fails.
    pub fn commit(&self) -> Result<Seq, Error> {
        read::committed(&self.call_long(Verb::Commit)?)
    }

    /// Commits, and brings the JSON files of all namespaces up to date.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushFailed`](super::Fault::FlushFailed) or
    /// [`Fault::FlushLockTimeout`](super::Fault::FlushLockTimeout): nothing is lost, flush again.
    pub fn flush(&self) -> Result<Flushed, Error> {
        self.flush_with(FlushOptions::default())?.ok_or_else(|| Error::protocol("it did not wait for the flush"))
    }

    /// As [`flush`](Self::flush), with options; `None` if it was not to be waited for.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub fn flush_with(&self, options: FlushOptions) -> Result<Option<Flushed>, Error> {
        read::flushed(&self.call_long(verbs::flush(None, options))?)
    }

    /// How the daemon is: a JSON object, whose members `docs/cli.md` describes.
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub fn status(&self) -> Result<String, Error> {
        read::status(&self.call(Verb::Status)?)
    }

    /// The namespaces of the store, loaded or not, workspace by workspace.
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>, Error> {
        read::namespaces(&self.call(Verb::Namespaces)?)
    }

    /// The workspaces of the store, its own directory (the empty name) first.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// for workspace in client.workspaces()? {
    ///     println!("{:?}: {} namespaces, {} loaded", workspace.workspace, workspace.namespaces, workspace.loaded);
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub fn workspaces(&self) -> Result<Vec<WorkspaceInfo>, Error> {
        read::workspaces(&self.call(Verb::Workspaces)?)
    }

    /// Who is connected to the daemon, this client among them; oldest first.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// for session in client.sessions()? {
    ///     println!("{}: {} requests of process {:?}", session.id, session.requests, session.pid);
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub fn sessions(&self) -> Result<Vec<SessionInfo>, Error> {
        read::sessions(&self.call(Verb::Sessions)?)
    }

    /// Ends another client's session, and so frees what a hung worker holds. `id` is its number in
    /// [`sessions`](Self::sessions).
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let hung = client.sessions()?.into_iter().find(|session| session.pid == Some(4711));
    /// if let Some(session) = hung {
    ///     client.end_session(session.id)?;
    /// }
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::NoSuchSession`](super::Fault::NoSuchSession); [`Error::OutcomeUnknown`] if the
    /// connection was lost before the answer came.
    pub fn end_session(&self, id: u64) -> Result<(), Error> {
        read::done(&self.call(Verb::EndSession { id })?)
    }

    /// Asks the daemon whether it lives.
    ///
    /// # Errors
    /// As for any read: [`Error::NoDaemon`], [`Error::Lost`], [`Error::TimedOut`].
    pub fn ping(&self) -> Result<(), Error> {
        read::done(&self.call(Verb::Ping)?)
    }

    /// Flushes everything and ends the daemon, for all its clients; returns when all files are up to date.
    ///
    /// # Errors
    /// [`Error::Fault`] with [`Fault::FlushFailed`](super::Fault::FlushFailed); [`Error::OutcomeUnknown`] if the
    /// connection was lost before the answer came.
    pub fn stop(&self) -> Result<(), Error> {
        read::done(&self.call_long(Verb::Stop)?)
    }

    /// The daemon's process, as this one sees it; none in another pid namespace, and where nobody tells.
    #[cfg(all(unix, feature = "daemon"))]
    pub(crate) fn daemon_pid(&self) -> Option<u32> {
        self.session().daemon_pid()
    }

    /// What this client keeps of the values it has read, and how often that has spared a question. Its clones share it.
    ///
    /// ```no_run
    /// # let client = commonhold::blocking::Client::connect("rag_storage")?;
    /// let stats = client.cache_stats();
    /// println!("{} of {} reads were hits", stats.hits, stats.hits + stats.misses);
    /// # Ok::<(), commonhold::blocking::Error>(())
    /// ```
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

impl ConnectOptions {
    /// Connects to the daemon that serves the store in `dir`; waits, as [`Client::connect_with`] does.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub fn connect(self, dir: impl AsRef<Path>) -> Result<Client, Error> {
        Client::connect_with(dir, self)
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
