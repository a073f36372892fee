//! One way to ask for both drivers of the client: a worker has the blocking one or the async one, on a runtime of its own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use commonhold::blocking::{self, Batch, ConnectOptions, Dropped, Error, Seq, Target, Value, Written};
use tokio::runtime::Runtime;

use super::objects::{OBJECTS, Object};
use super::recorder::Failure;

/// Longer than any nemesis keeps a daemon from answering.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A client, with its namespaces of each of the [`OBJECTS`].
pub(crate) enum Asker {
    Blocking { client: blocking::Client, spaces: Vec<Vec<blocking::Namespace>> },
    Async { runtime: Runtime, client: commonhold::Client, spaces: Vec<Vec<commonhold::Namespace>> },
}

/// A request that was sent, and whose answer is not waited for yet.
pub(crate) enum Later<T> {
    Blocking(blocking::Pending<T>),
    Async(commonhold::Pending<T>),
}

/// Connects as soon as there is a daemon; none if there is no need any more.
pub(crate) fn connect(store: &Path, timeout: Duration, over: &AtomicBool) -> Result<Option<blocking::Client>, Failure> {
    until_connected(over, || options(timeout).connect(store))
}

fn options(timeout: Duration) -> ConnectOptions {
    ConnectOptions::new().timeout(Some(timeout)).reconnect_for(PATIENCE)
}

fn until_connected<C>(over: &AtomicBool, connect: impl Fn() -> Result<C, Error>) -> Result<Option<C>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect() {
            Ok(client) => return Ok(Some(client)),
            Err(_) if over.load(Ordering::Relaxed) => return Ok(None),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

impl Asker {
    /// Connects with the async client as soon as there is a daemon; none if there is no need any more.
    pub(crate) fn connect_async(store: &Path, timeout: Duration, over: &AtomicBool) -> Result<Option<Self>, Failure> {
        // One of the two forms of runtime that programs have.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let connected =
            until_connected(over, || runtime.block_on(commonhold::Client::connect_with(store, options(timeout))))?;
        let Some(client) = connected else { return Ok(None) };
        let open = |(workspace, name): &(&str, &str), is_volatile: bool| {
            let namespace = match *workspace {
                "" => client.namespace(name)?,
                _ => client.workspace(workspace)?.namespace(name)?,
            };
            Ok::<_, Error>(if is_volatile { namespace.volatile() } else { namespace })
        };
        let spaces_of = |object: &Object| object.spaces.iter().map(|space| open(space, object.is_volatile())).collect();
        let spaces = OBJECTS.iter().map(spaces_of).collect::<Result<_, Error>>()?;
        Ok(Some(Self::Async { runtime, client, spaces }))
    }

    /// The same through the blocking client.
    pub(crate) fn blocking(client: blocking::Client) -> Result<Self, Error> {
        let spaces = OBJECTS.iter().map(|object| object.namespaces(&client)).collect::<Result<_, _>>()?;
        Ok(Self::Blocking { client, spaces })
    }

    /// Another one with the same client, for another thread; none of the async client, whose runtime is its asker's.
    pub(crate) fn shared(&self) -> Result<Option<Self>, Error> {
        match self {
            Self::Blocking { client, .. } => Self::blocking(client.clone()).map(Some),
            Self::Async { .. } => Ok(None),
        }
    }

    /// The namespaces of an object.
    pub(crate) fn targets(&self, at: usize) -> Vec<Target> {
        match self {
            Self::Blocking { spaces, .. } => spaces[at].iter().map(|space| space.as_ref().clone()).collect(),
            Self::Async { spaces, .. } => spaces[at].iter().map(|space| space.as_ref().clone()).collect(),
        }
    }

    pub(crate) fn write(&self, batch: &Batch) -> Result<Written, Error> {
        match self {
            Self::Blocking { client, .. } => client.write(batch),
            Self::Async { runtime, client, .. } => runtime.block_on(client.write(batch)),
        }
    }

    pub(crate) fn begin(&self, batch: &Batch) -> Result<Later<Written>, Error> {
        match self {
            Self::Blocking { client, .. } => client.begin(batch).map(Later::Blocking),
            Self::Async { runtime, client, .. } => runtime.block_on(client.begin(batch)).map(Later::Async),
        }
    }

    pub(crate) fn get_later(&self, at: usize, key: &str) -> Result<Later<Option<Value>>, Error> {
        match self {
            Self::Blocking { spaces, .. } => spaces[at][0].get_raw_later(key).map(Later::Blocking),
            Self::Async { runtime, spaces, .. } => runtime.block_on(spaces[at][0].get_raw_later(key)).map(Later::Async),
        }
    }

    /// Waits for the answer.
    pub(crate) fn wait<T>(&self, later: Later<T>) -> Result<T, Error> {
        match (self, later) {
            (_, Later::Blocking(pending)) => pending.wait(),
            (Self::Async { runtime, .. }, Later::Async(pending)) => runtime.block_on(pending),
            (Self::Blocking { .. }, Later::Async(_)) => unreachable!("this one has no runtime to begin with"),
        }
    }

    /// One key, or many at one moment.
    pub(crate) fn get(&self, at: usize, space: usize, keys: &[&str]) -> Result<Vec<Option<Value>>, Error> {
        match (self, keys) {
            (Self::Blocking { spaces, .. }, [key]) => spaces[at][space].get_raw(key).map(|found| vec![found]),
            (Self::Blocking { spaces, .. }, keys) => spaces[at][space].get_many_raw(keys),
            (Self::Async { runtime, spaces, .. }, [key]) => {
                runtime.block_on(spaces[at][space].get_raw(key)).map(|found| vec![found])
            }
            (Self::Async { runtime, spaces, .. }, keys) => runtime.block_on(spaces[at][space].get_many_raw(keys)),
        }
    }

    /// How many values were served from what the client keeps, and how many were asked for.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        let stats = match self {
            Self::Blocking { client, .. } => client.cache_stats(),
            Self::Async { client, .. } => client.cache_stats(),
        };
        (stats.hits, stats.misses)
    }

    pub(crate) fn contains(&self, at: usize, key: &str) -> Result<bool, Error> {
        match self {
            Self::Blocking { spaces, .. } => spaces[at][0].contains(key),
            Self::Async { runtime, spaces, .. } => runtime.block_on(spaces[at][0].contains(key)),
        }
    }

    pub(crate) fn drop_namespace(&self, at: usize) -> Result<Dropped, Error> {
        match self {
            Self::Blocking { spaces, .. } => spaces[at][0].drop_namespace(),
            Self::Async { runtime, spaces, .. } => runtime.block_on(spaces[at][0].drop_namespace()),
        }
    }

    pub(crate) fn commit(&self) -> Result<Seq, Error> {
        match self {
            Self::Blocking { client, .. } => client.commit(),
            Self::Async { runtime, client, .. } => runtime.block_on(client.commit()),
        }
    }
}
