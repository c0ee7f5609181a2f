//! Counters and gauges, and how Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A node's numbers. Cheap to clone; counting takes no lock once a name is known to the caller as
/// a [`Counter`], and a shared one otherwise. Names are fixed words, so there are few.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    counters: Arc<RwLock<BTreeMap<&'static str, Counter>>>,
    gauges: Arc<RwLock<BTreeMap<&'static str, Counter>>>,
}

/// One number that many may change at once.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// The counter of this name, to be kept where it is counted often.
    pub fn counter(&self, name: &'static str) -> Counter {
        find(&self.counters, name)
    }

    /// A number that goes up and down.
    pub fn gauge(&self, name: &'static str) -> Counter {
        find(&self.gauges, name)
    }

    pub fn count(&self, name: &'static str, n: u64) {
        self.counter(name).add(n);
    }

    /// The text exposition format: `dunlin_NAME_total` for counters, `dunlin_NAME` for gauges.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for (kind, suffix, numbers) in [("counter", "_total", &self.counters), ("gauge", "", &self.gauges)] {
            for (name, number) in numbers.read().unwrap_or_else(PoisonError::into_inner).iter() {
                let name: String =
                    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "# TYPE dunlin_{name}{suffix} {kind}\ndunlin_{name}{suffix} {}",
                    number.get()
                );
            }
        }
        text
    }
}

fn find(numbers: &RwLock<BTreeMap<&'static str, Counter>>, name: &'static str) -> Counter {
    if let Some(counter) = numbers.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return counter.clone();
    }
    numbers.write().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_reads_counters_and_gauges() {
        let metrics = Metrics::default();
        metrics.count("frames-dropped", 2);
        metrics.counter("frames-dropped").add(1);
        metrics.gauge("peers").set(4);
        let text = metrics.to_prometheus();
        assert!(text.contains("# TYPE dunlin_frames_dropped_total counter\ndunlin_frames_dropped_total 3\n"));
        assert!(text.contains("# TYPE dunlin_peers gauge\ndunlin_peers 4\n"));
    }
}
