//! LMDB through heed, in this very process: no socket, and as durable as a synced store with each commit.

use std::path::Path;

use anyhow::Result;
use heed::types::Str;
use heed::{Database, Env, EnvOpenOptions};

use crate::record;

pub const NAME: &str = "lmdb";

/// Records in a transaction while it is filled.
const CHUNK: usize = 10_000;

/// An environment with one database.
#[derive(Clone)]
pub struct Lmdb {
    env: Env,
    records: Database<Str, Str>,
}

impl Lmdb {
    #[expect(unsafe_code, reason = "an environment is mapped memory; the directory is fresh and this process's alone")]
    pub fn open(directory: &Path, records: usize) -> Result<Self> {
        let directory = directory.join("lmdb");
        std::fs::create_dir_all(&directory)?;
        let room = (records * 2_048).max(64 << 20).next_multiple_of(1 << 20);
        // SAFETY: nobody else opens this fresh directory, and nothing truncates its file while it is mapped.
        let env = unsafe { EnvOpenOptions::new().map_size(room).max_readers(256).open(&directory)? };
        let mut transaction = env.write_txn()?;
        let records = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Self { env, records })
    }

    /// Stores the records `0..count`.
    pub fn fill(&self, count: usize) -> Result<()> {
        for first in (0..count).step_by(CHUNK) {
            let mut transaction = self.env.write_txn()?;
            for number in first..(first + CHUNK).min(count) {
                self.records.put(&mut transaction, &record::key(number), &record::value(number))?;
            }
            transaction.commit()?;
        }
        Ok(())
    }

    /// The length of a value, read in a transaction of its own.
    pub fn get(&self, key: &str) -> Result<Option<usize>> {
        let transaction = self.env.read_txn()?;
        Ok(self.records.get(&transaction, key)?.map(str::len))
    }

    /// One record in a transaction of its own, synced when this returns.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.records.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }
}
