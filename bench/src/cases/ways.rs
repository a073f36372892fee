//! Many threads, each with a connection of its own, that ask at the same time: the same load for every side.

use std::time::Instant;

use anyhow::{Context as _, Result};
use commonhold::blocking::Namespace;
use redis::Connection;

use super::socket::RECORDS;
use crate::latencies::Latencies;
use crate::peers::lmdb::Lmdb;
use crate::record;

/// A way to a server that one thread has.
pub trait Way: Send {
    fn get(&mut self, key: &str) -> Result<()>;
    fn put(&mut self, key: &str, value: &str) -> Result<()>;
    /// Sends a request for each key before it reads the first answer.
    fn get_all(&mut self, keys: &[String]) -> Result<()>;
    fn put_all(&mut self, keys: &[String], value: &str) -> Result<()>;
}

impl Way for Namespace {
    fn get(&mut self, key: &str) -> Result<()> {
        self.get_raw(key)?.context("it is there")?;
        Ok(())
    }

    fn put(&mut self, key: &str, value: &str) -> Result<()> {
        self.put_raw(key, value)?;
        Ok(())
    }

    fn get_all(&mut self, keys: &[String]) -> Result<()> {
        let pipeline = self.client().pipeline();
        let pending: Vec<_> = keys.iter().map(|key| self.get_raw_later(key)).collect::<Result<_, _>>()?;
        pipeline.send()?;
        for get in pending {
            get.wait()?.context("it is there")?;
        }
        Ok(())
    }

    fn put_all(&mut self, keys: &[String], value: &str) -> Result<()> {
        let pipeline = self.client().pipeline();
        let pending: Vec<_> = keys.iter().map(|key| self.put_raw_later(key, value)).collect::<Result<_, _>>()?;
        pipeline.send()?;
        for put in pending {
            put.wait()?;
        }
        Ok(())
    }
}

impl Way for Connection {
    fn get(&mut self, key: &str) -> Result<()> {
        let _: String = redis::Commands::get(self, key)?;
        Ok(())
    }

    fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let _: () = redis::Commands::set(self, key, value)?;
        Ok(())
    }

    fn get_all(&mut self, keys: &[String]) -> Result<()> {
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.get(key);
        }
        let values: Vec<String> = pipe.query(self)?;
        assert_eq!(values.len(), keys.len());
        Ok(())
    }

    fn put_all(&mut self, keys: &[String], value: &str) -> Result<()> {
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.set(key, value).ignore();
        }
        let () = pipe.query(self)?;
        Ok(())
    }
}

impl Way for Lmdb {
    fn get(&mut self, key: &str) -> Result<()> {
        Lmdb::get(self, key)?.context("it is there")?;
        Ok(())
    }

    fn put(&mut self, key: &str, value: &str) -> Result<()> {
        Lmdb::put(self, key, value)
    }

    // There is nothing between it and the caller that several could be in flight in.
    fn get_all(&mut self, keys: &[String]) -> Result<()> {
        keys.iter().try_for_each(|key| Way::get(self, key))
    }

    fn put_all(&mut self, keys: &[String], value: &str) -> Result<()> {
        keys.iter().try_for_each(|key| Way::put(self, key, value))
    }
}

/// What each thread of a crowd does.
#[derive(Clone, Copy)]
pub struct Load {
    pub writes: bool,
    /// Requests in flight.
    pub depth: usize,
    /// Rounds of so many requests that each thread does.
    pub bursts: usize,
}

/// Has a thread for each way do its load, all at once, and answers the requests a second.
pub fn at_once(ways: &mut [Box<dyn Way>], load: Load, latencies: &mut Latencies) -> Result<f64> {
    let count = ways.len();
    let began = Instant::now();
    let each = std::thread::scope(|scope| {
        let threads: Vec<_> = ways
            .iter_mut()
            .enumerate()
            .map(|(index, way)| scope.spawn(move || one_thread(way.as_mut(), index, load)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let took = began.elapsed().as_secs_f64();
    for those in &each {
        latencies.add(those);
    }
    Ok((count * load.bursts * load.depth) as f64 / took)
}

fn one_thread(way: &mut dyn Way, index: usize, load: Load) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut random = fastrand::Rng::with_seed(index as u64);
    let value = record::value(index);
    for _ in 0..load.bursts {
        let keys: Vec<String> = (0..load.depth).map(|_| record::key(random.usize(..RECORDS))).collect();
        let began = Instant::now();
        match (load.writes, &keys[..]) {
            (false, [key]) => way.get(key)?,
            (true, [key]) => way.put(key, &value)?,
            (false, _) => way.get_all(&keys)?,
            (true, _) => way.put_all(&keys, &value)?,
        }
        latencies.record(began.elapsed());
    }
    Ok(latencies)
}
