//! Latencies counted in buckets that are never wider than about 1.6 % of what they hold, so that millions of calls take
//! 30 KiB and the rare slow one is still seen.

use std::time::Duration;

/// Buckets for each doubling: 64 halves of a power of two apart.
const PER_DOUBLING: u64 = 64;
const SHIFT: u32 = PER_DOUBLING.ilog2();
/// Up to twice `PER_DOUBLING` each number has its own bucket; after that each doubling, up to all of 64 bits, has as many.
const BUCKETS: usize = (PER_DOUBLING * (64 - SHIFT as u64 + 1)) as usize;

/// How long calls took, in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Quantiles {
    counts: Vec<u64>,
    calls: u64,
    longest: u64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], calls: 0, longest: 0 }
    }
}

impl Quantiles {
    pub(super) fn record(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.calls += 1;
        self.longest = self.longest.max(nanoseconds);
    }

    pub(super) fn add(&mut self, others: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&others.counts) {
            *count += more;
        }
        self.calls += others.calls;
        self.longest = self.longest.max(others.longest);
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The time within which so many of a thousand calls were done; zero if there was none.
    pub(super) fn within(&self, of_thousand: u64) -> Duration {
        let wanted = (u128::from(self.calls) * u128::from(of_thousand)).div_ceil(1_000);
        let mut seen = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen += u128::from(count);
            if count > 0 && seen >= wanted {
                return Duration::from_nanos(last_of(bucket).min(self.longest));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let doubling = nanoseconds.checked_ilog2().unwrap_or(0).saturating_sub(SHIFT);
    (u64::from(doubling) * PER_DOUBLING + (nanoseconds >> doubling)) as usize
}

/// The largest number of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doubling = (bucket / PER_DOUBLING).saturating_sub(1);
    let first = bucket - doubling * PER_DOUBLING;
    u64::try_from(((u128::from(first) + 1) << doubling) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_its_bucket_which_is_narrow() {
        let mut last = 0;
        for power in 0..64 {
            for number in [(1_u64 << power) - 1, 1 << power, (1 << power) + (1 << power) / 3] {
                let at = bucket(number);
                assert!(at < BUCKETS && at >= last, "{number}");
                assert!(last_of(at) >= number && last_of(at) - number <= number / PER_DOUBLING, "{number}");
                last = at;
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn a_slow_call_among_a_thousand_is_the_last_thousandth() {
        let mut quantiles = Quantiles::default();
        for _ in 0..998 {
            quantiles.record(Duration::from_micros(10));
        }
        let mut others = Quantiles::default();
        others.record(Duration::from_millis(5));
        others.record(Duration::from_millis(7));
        quantiles.add(&others);
        let near = |found: Duration, wanted: Duration| found >= wanted && found <= wanted + wanted / 50;
        assert!(near(quantiles.within(500), Duration::from_micros(10)));
        assert!(near(quantiles.within(998), Duration::from_micros(10)));
        assert!(near(quantiles.within(999), Duration::from_millis(5)));
        assert_eq!(
            (quantiles.within(1_000), quantiles.longest()),
            (Duration::from_millis(7), Duration::from_millis(7))
        );
        assert_eq!((quantiles.calls(), Quantiles::default().within(999)), (1_000, Duration::ZERO));
    }
}
