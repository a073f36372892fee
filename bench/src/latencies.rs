//! Single latencies as a histogram, so that the rare slow one is not averaged away.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What one side's calls took, each, in all rounds together.
pub struct Latencies(Histogram<u64>);

/// The figures that are told of them, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub calls: u64,
    pub p50: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }
}

impl Latencies {
    pub fn record(&mut self, took: Duration) {
        self.record_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn record_ns(&mut self, nanoseconds: u64) {
        self.0.record(nanoseconds.max(1)).expect("it grows by itself");
    }

    pub fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("both grow by themselves");
    }

    /// Nothing if no call was recorded.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Percentiles {
            calls: self.0.len(),
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.0.max(),
        })
    }
}
