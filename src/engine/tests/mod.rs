//! The engine's promises, each tried on the simulated disk. [`model`] tries them all at once, at random.

mod changes;
mod concurrency;
mod conditions;
mod dropping;
mod flush;
mod flush_crashes;
mod full_disk;
mod journal_damage;
mod loading;
mod memory;
mod memory_limit;
mod model;
mod pace;
mod promises;
mod quarantine;
mod read_only;
mod real;
mod renewal;
mod repair;
mod rescue;
mod rig;
mod segments;
mod snapshots;
mod storage_text;
mod trouble;
mod volatile;
