//! The `host` source: this machine's own load, processor, memory, disk and network, every so often.
//!
//! Live input that every machine has. A sample that cannot be appended at once is skipped and
//! counted: an old sample is worth nothing, and the next one is near. Several nodes may share a
//! machine, so `node` is the node's id; the machine's name is `host`.

use std::path::{Path, PathBuf};

use dunlin_operators::ingest::event_from_json;
use dunlin_protocol::id::NodeId;
use dunlin_protocol::pipeline::manifest::Source;
use dunlin_protocol::time::{Span, Time};
use serde::Serialize;
use sysinfo::{Networks, System};

use super::feed::{Feed, PublishDoor};
use super::pace::Stopped;

/// The field that is the key when the source names none.
const KEY: &str = "node";
/// Samples are not taken more often than this.
const EVERY_MIN: Span = Span(10);

/// Runs until it is stopped.
pub fn run<D: PublishDoor>(feed: &mut Feed<D>, node: NodeId, folder: &Path, every: Span) -> Stopped {
    let every = every.max(EVERY_MIN);
    let mut host = Host::new(node, folder);
    let source = keyed(feed.source());
    let mut skipping = false;
    loop {
        let began = feed.now();
        let sample = host.sample(began);
        let appended = serde_json::to_vec(&sample)
            .map_err(|why| why.to_string())
            .and_then(|payload| {
                event_from_json(&source, &payload, began).map_err(|reject| reject.to_string())
            })
            .and_then(|event| feed.offer(event).map_err(|fault| fault.detail));
        let trouble =
            appended.as_ref().err().map(|why| format!("samples of this machine are skipped: {why}"));
        feed.counts().set_trouble(trouble);
        if let Err(why) = &appended {
            feed.counts().skipped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // Said when it begins; the count goes on.
            if !skipping {
                tracing::warn!(source = %feed.shown(), "samples of this machine are skipped: {why}");
            }
        }
        skipping = appended.is_err();
        let spent = feed.now().since(began);
        if feed.wait(Span(every.0.saturating_sub(spent.0).max(1))).is_err() {
            return Stopped;
        }
    }
}

fn keyed(source: &Source) -> Source {
    Source { key: Some(source.key.clone().unwrap_or_else(|| KEY.into())), ..source.clone() }
}

/// One look at the machine. Bytes are bytes, rates are bytes a second, `cpu` is per cent of all
/// processors. What a machine does not tell is absent.
#[derive(Debug, Serialize)]
struct Sample {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    at: String,
    #[serde(flatten)]
    load: Option<Load>,
    cpu: f64,
    memory_used: u64,
    memory_total: u64,
    #[serde(flatten)]
    disk: Option<Disk>,
    net_rx: f64,
    net_tx: f64,
}

#[derive(Debug, Serialize)]
struct Load {
    load1: f64,
    load5: f64,
    load15: f64,
}

/// The file system of the node's data folder.
#[derive(Debug, Serialize)]
struct Disk {
    disk_used: u64,
    disk_total: u64,
}

struct Host {
    node: NodeId,
    name: Option<String>,
    folder: PathBuf,
    system: Option<System>,
    networks: Option<Networks>,
    /// When the networks' counters were read last.
    read: Option<Time>,
}

impl Host {
    fn new(node: NodeId, folder: &Path) -> Host {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            // Processor use is the difference between two looks.
            system.refresh_cpu_usage();
        }
        Host {
            node,
            name: System::host_name().ok(),
            folder: folder.to_path_buf(),
            system,
            networks: Networks::new_with_refreshed_list().ok(),
            read: None,
        }
    }

    fn sample(&mut self, now: Time) -> Sample {
        let (mut cpu, mut memory) = (0.0, (0, 0));
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            cpu = two_places(f64::from(system.global_cpu_usage()));
            memory = (system.used_memory(), system.total_memory());
        }
        let (net_rx, net_tx) = self.rates(now);
        Sample {
            node: self.node.to_string(),
            host: self.name.clone(),
            at: now.to_rfc3339(),
            load: System::load_average().ok().map(|load| Load {
                load1: load.one,
                load5: load.five,
                load15: load.fifteen,
            }),
            cpu,
            memory_used: memory.0,
            memory_total: memory.1,
            disk: disk(&self.folder),
            net_rx,
            net_tx,
        }
    }

    /// Bytes a second in and out since the last look, without the loopback; zero at the first.
    fn rates(&mut self, now: Time) -> (f64, f64) {
        let Some(networks) = &mut self.networks else { return (0.0, 0.0) };
        networks.refresh(true);
        let (mut received, mut sent) = (0u64, 0u64);
        for (_, network) in networks.iter().filter(|(name, _)| !is_loopback(name)) {
            received = received.saturating_add(network.received());
            sent = sent.saturating_add(network.transmitted());
        }
        let since = self.read.replace(now).map_or(0, |read| now.since(read).0);
        if since == 0 {
            return (0.0, 0.0);
        }
        let rate = |bytes: u64| two_places(bytes as f64 * 1000.0 / since as f64);
        (rate(received), rate(sent))
    }
}

fn is_loopback(name: &std::ffi::OsStr) -> bool {
    matches!(name.to_str(), Some("lo" | "lo0"))
}

fn disk(folder: &Path) -> Option<Disk> {
    let about = rustix::fs::statvfs(folder).ok()?;
    let total = about.f_blocks.saturating_mul(about.f_frsize);
    let free = about.f_bfree.saturating_mul(about.f_frsize);
    Some(Disk { disk_used: total.saturating_sub(free), disk_total: total })
}

fn two_places(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_tells_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::new(NodeId([1; 32]), folder.path());
        let sample = serde_json::to_value(host.sample(Time(1000))).unwrap();
        for field in ["load1", "load5", "load15", "cpu", "memory_used", "disk_used", "net_rx", "net_tx"] {
            assert!(sample[field].as_f64().is_some_and(|value| value >= 0.0), "{field} in {sample}");
        }
        assert_eq!(sample["at"], "1970-01-01T00:00:01Z");
        assert!(sample["node"].as_str().unwrap().starts_with("12D3Koo"));
        assert!(sample["disk_total"].as_u64() >= sample["disk_used"].as_u64());
        assert!(sample["memory_total"].as_u64() > Some(0));
    }
}
