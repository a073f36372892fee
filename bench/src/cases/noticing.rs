//! Who is held up while something large goes on: a reader, a writer and a bare peer, each asking at the same pace. What
//! the bare one has to wait for, the machine makes; what only ours wait for, we do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use commonhold::blocking::Namespace;

use crate::latencies::Latencies;
use crate::ours;
use crate::outcome::{Outcome, Unit, figure};
use crate::peers::bare::Bare;
use crate::record;
use crate::turns::Measured;

/// They are to be there when something stalls, and not to take the processors.
const PACE: Duration = Duration::from_micros(200);

/// What was noticed so far.
#[derive(Default)]
pub struct Noticed {
    get: Latencies,
    upsert: Latencies,
    bare: Latencies,
}

impl Noticed {
    /// Has all three ask as long as `work` goes on. Record 0 must be there.
    pub fn during(
        &mut self,
        reader: &Namespace,
        writer: &Namespace,
        bare: &mut Bare,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let done = AtomicBool::new(false);
        let key = record::key(0);
        let (get, upsert, of_bare) = (&mut self.get, &mut self.upsert, &mut self.bare);
        std::thread::scope(|scope| {
            let get = scope.spawn(|| {
                until_done(&done, get, || {
                    reader.get_raw(&key)?;
                    Ok(())
                })
            });
            let upsert = scope.spawn(|| {
                until_done(&done, upsert, || {
                    writer.put_raw(&key, &record::small_value(0))?;
                    Ok(())
                })
            });
            let bare = scope.spawn(|| until_done(&done, of_bare, || bare.write()));
            let worked = work();
            done.store(true, Ordering::Release);
            for asking in [get, upsert, bare] {
                asking.join().expect("it does not panic")?;
            }
            worked
        })
    }

    /// The slowest call of ours as the figure; wanted is that it is no longer than `most_ms`, or than the bare peer's.
    pub fn outcome(&self, case: &str, most_ms: f64) -> Result<Outcome> {
        let side = |name: &str, latencies: &Latencies| -> Result<Measured> {
            let percentiles = latencies.percentiles().context("there was a call")?;
            let worst = percentiles.max as f64 / 1e6;
            Ok(Measured { latencies: Some(percentiles), ..Measured::once(name, worst) })
        };
        let get = side("commonhold, gets alone", &self.get)?;
        let upsert = side("commonhold, upserts alone", &self.upsert)?;
        let bare = side("bare write meanwhile", &self.bare)?;
        let ours = Measured::once(ours::NAME, get.median.max(upsert.median));
        let floor = bare.median;
        let outcome = Outcome::new(case, Unit::Milliseconds, vec![ours, get, upsert, bare]).at_most(floor.max(most_ms));
        Ok(outcome.note(format!(
            "the slowest single call; a bare ping-pong with a write had to wait {} ms at worst in the same time, and what it has to wait \
             for is not of our making",
            figure(floor)
        )))
    }
}

/// Makes one call after the other.
fn until_done(done: &AtomicBool, latencies: &mut Latencies, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    while !done.load(Ordering::Acquire) {
        let began = Instant::now();
        call()?;
        latencies.record(began.elapsed());
        std::thread::sleep(PACE);
    }
    Ok(())
}
