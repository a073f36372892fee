//! The two drivers behind one face, so that each promise is written once and kept by both.
//!
//! The async client stands behind it on a runtime of its own; every call blocks the calling thread until its future is
//! ready, so what is tested is the driver and not the runtime.

use std::path::Path;
use std::sync::Arc;

use commonhold::blocking::{self, ConnectOptions, Entry, Error, Seq, Value, Written};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// Writes each promise down as a test of each driver.
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        mod blocking {
            $(#[test]
            fn $name() {
                super::$name::<crate::driver::Blocking>();
            })*
        }
        mod asynchronous {
            $(#[test]
            fn $name() {
                super::$name::<crate::driver::Async>();
            })*
        }
    };
}
pub(crate) use promises;

/// What both clients can do, as far as the promises need it.
pub(crate) trait Driver: Sized + Send + Sync {
    type Records: Records;

    fn connect_with(dir: &Path, options: ConnectOptions) -> Result<Self, Error>;
    fn namespace(&self, name: &str) -> Self::Records;
    fn commit(&self) -> Result<Seq, Error>;
    fn ping(&self) -> Result<(), Error>;
    fn boot(&self) -> u64;
    fn restarts(&self) -> u64;
}

/// What both namespaces can do.
pub(crate) trait Records: Clone + Send + Sync {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error>;
    fn get_raw(&self, key: &str) -> Result<Option<Value>, Error>;
    fn get_raw_later(&self, key: &str) -> Result<impl Later<Option<Value>> + use<Self>, Error>;
    fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Vec<Option<T>>, Error>;
    fn put<T: Serialize + Sync>(&self, key: &str, value: &T) -> Result<Written, Error>;
    fn put_raw(&self, key: &str, value: &str) -> Result<Written, Error>;
    fn put_raw_later(&self, key: &str, value: &str) -> Result<impl Later<Written> + use<Self>, Error>;
    fn increment(&self, key: &str, field: &str, by: i64) -> Result<Written, Error>;
    fn scan(&self) -> impl Iterator<Item = Result<Entry, Error>>;
    fn get_all(&self) -> impl Stream + use<Self>;
}

/// An answer to come.
pub(crate) trait Later<T> {
    fn wait(self) -> Result<T, Error>;
}

/// All records of one moment.
pub(crate) trait Stream: Iterator<Item = Result<Entry, Error>> {
    fn seq(&self) -> Option<Seq>;
}

/// `commonhold::blocking`.
pub(crate) struct Blocking(blocking::Client);

impl Driver for Blocking {
    type Records = blocking::Namespace;

    fn connect_with(dir: &Path, options: ConnectOptions) -> Result<Self, Error> {
        blocking::Client::connect_with(dir, options).map(Self)
    }

    fn namespace(&self, name: &str) -> Self::Records {
        self.0.namespace(name).unwrap()
    }

    fn commit(&self) -> Result<Seq, Error> {
        self.0.commit()
    }

    fn ping(&self) -> Result<(), Error> {
        self.0.ping()
    }

    fn boot(&self) -> u64 {
        self.0.boot()
    }

    fn restarts(&self) -> u64 {
        self.0.restarts()
    }
}

impl Records for blocking::Namespace {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get(key)
    }

    fn get_raw(&self, key: &str) -> Result<Option<Value>, Error> {
        self.get_raw(key)
    }

    fn get_raw_later(&self, key: &str) -> Result<impl Later<Option<Value>> + use<>, Error> {
        self.get_raw_later(key)
    }

    fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Vec<Option<T>>, Error> {
        self.get_many(keys)
    }

    fn put<T: Serialize + Sync>(&self, key: &str, value: &T) -> Result<Written, Error> {
        self.put(key, value)
    }

    fn put_raw(&self, key: &str, value: &str) -> Result<Written, Error> {
        self.put_raw(key, value)
    }

    fn put_raw_later(&self, key: &str, value: &str) -> Result<impl Later<Written> + use<>, Error> {
        self.put_raw_later(key, value)
    }

    fn increment(&self, key: &str, field: &str, by: i64) -> Result<Written, Error> {
        self.increment(key, field, by)
    }

    fn scan(&self) -> impl Iterator<Item = Result<Entry, Error>> {
        self.scan()
    }

    fn get_all(&self) -> impl Stream + use<> {
        self.get_all()
    }
}

impl<T> Later<T> for blocking::Pending<T> {
    fn wait(self) -> Result<T, Error> {
        self.wait()
    }
}

impl Stream for blocking::GetAll {
    fn seq(&self) -> Option<Seq> {
        self.seq()
    }
}

/// `commonhold::Client`, on a runtime.
pub(crate) struct Async {
    runtime: Arc<Runtime>,
    client: commonhold::Client,
}

/// Something of the async client, with the runtime that it is used on.
#[derive(Clone)]
pub(crate) struct On<T> {
    runtime: Arc<Runtime>,
    what: T,
}

impl Driver for Async {
    type Records = On<commonhold::Namespace>;

    fn connect_with(dir: &Path, options: ConnectOptions) -> Result<Self, Error> {
        let runtime = Arc::new(Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        let client = runtime.block_on(commonhold::Client::connect_with(dir, options))?;
        Ok(Self { runtime, client })
    }

    fn namespace(&self, name: &str) -> Self::Records {
        On { runtime: Arc::clone(&self.runtime), what: self.client.namespace(name).unwrap() }
    }

    fn commit(&self) -> Result<Seq, Error> {
        self.runtime.block_on(self.client.commit())
    }

    fn ping(&self) -> Result<(), Error> {
        self.runtime.block_on(self.client.ping())
    }

    fn boot(&self) -> u64 {
        self.client.boot()
    }

    fn restarts(&self) -> u64 {
        self.client.restarts()
    }
}

impl<T> On<T> {
    fn on<U>(&self, what: U) -> On<U> {
        On { runtime: Arc::clone(&self.runtime), what }
    }
}

impl Records for On<commonhold::Namespace> {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.runtime.block_on(self.what.get(key))
    }

    fn get_raw(&self, key: &str) -> Result<Option<Value>, Error> {
        self.runtime.block_on(self.what.get_raw(key))
    }

    fn get_raw_later(&self, key: &str) -> Result<impl Later<Option<Value>> + use<>, Error> {
        Ok(self.on(self.runtime.block_on(self.what.get_raw_later(key))?))
    }

    fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Vec<Option<T>>, Error> {
        self.runtime.block_on(self.what.get_many(keys))
    }

    fn put<T: Serialize + Sync>(&self, key: &str, value: &T) -> Result<Written, Error> {
        self.runtime.block_on(self.what.put(key, value))
    }

    fn put_raw(&self, key: &str, value: &str) -> Result<Written, Error> {
        self.runtime.block_on(self.what.put_raw(key, value))
    }

    fn put_raw_later(&self, key: &str, value: &str) -> Result<impl Later<Written> + use<>, Error> {
        Ok(self.on(self.runtime.block_on(self.what.put_raw_later(key, value))?))
    }

    fn increment(&self, key: &str, field: &str, by: i64) -> Result<Written, Error> {
        self.runtime.block_on(self.what.increment(key, field, by))
    }

    fn scan(&self) -> impl Iterator<Item = Result<Entry, Error>> {
        let (runtime, mut scan) = (Arc::clone(&self.runtime), self.what.scan());
        std::iter::from_fn(move || runtime.block_on(scan.next()))
    }

    fn get_all(&self) -> impl Stream + use<> {
        self.on(self.what.get_all())
    }
}

impl<T> Later<T> for On<commonhold::Pending<T>> {
    fn wait(self) -> Result<T, Error> {
        self.runtime.block_on(self.what)
    }
}

impl Iterator for On<commonhold::GetAll> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.what.next())
    }
}

impl Stream for On<commonhold::GetAll> {
    fn seq(&self) -> Option<Seq> {
        self.what.seq()
    }
}
