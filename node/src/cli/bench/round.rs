//! One measured run over a stream: deploy, open the readers, send by the schedule, wait for the last
//! event, check the ledgers, take the pipeline away again.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::BytesMut;
use dunlin_protocol::id::Name;
use dunlin_protocol::pipeline::manifest::{Manifest, StreamName};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use super::load::{self, Schedule, Target};
use super::machine::{Machine, cpu_seconds};
use super::mesh::Mesh;
use super::payload::{self, Template};
use super::receipt::{PROBE, Reader, Receipts};
use super::report::{self, Cpu, Figure, Latency, Parameters, Row, Unmeasured};
use crate::cli::deploy::{self, PipelineFile};
use crate::network::RpcClient;

/// The way through a fresh pipeline opens within this.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// No event for so long means that no more will come.
const STALL_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Of each run, at most this much at its beginning is left out of the latency.
const SKIPPED_SECONDS: f64 = 1.0;
/// Readers of one node share this many connections: a client has one, not one for each of its taps.
const CONNECTIONS_MAX: usize = 32;

/// What a run is about.
#[derive(Debug, Clone)]
pub struct Round {
    pub scenario: &'static str,
    pub manifest: Manifest,
    pub source: Name,
    /// What is read.
    pub stream: StreamName,
    /// The node that each reader talks to, counted from 0.
    pub readers: Vec<usize>,
    pub size: usize,
    pub keys: u32,
    pub schedule: Schedule,
    pub parameters: Parameters,
}

/// Runs it. A lost or doubled event is in the row, not an error.
pub fn measure(mesh: &mut Mesh, round: &Round, bar: &ProgressBar) -> anyhow::Result<Row> {
    let pipeline = round.manifest.name.clone();
    bar.set_message(format!("deploying {pipeline}"));
    let file = PipelineFile { text: "", name: Path::new("bench"), base: Path::new("") };
    // One bar is on the terminal already.
    deploy::send(&*mesh.client, round.manifest.clone(), &file, &ProgressBar::hidden())?;
    let row = run(mesh, round, bar);
    if mesh.is_own() {
        // Of nodes that have ended nothing can be removed; on a mesh of others nothing may stay.
        mesh.check()?;
    }
    let removed = mesh.remove(&pipeline);
    let row = row?;
    removed?;
    Ok(row)
}

fn run(mesh: &mut Mesh, round: &Round, bar: &ProgressBar) -> anyhow::Result<Row> {
    let runtime = mesh.runtime.clone();
    let template = Arc::new(Template::new(round.size, round.keys));
    let publisher = mesh.connect(0)?;
    let target =
        Target { client: publisher, pipeline: round.manifest.name.clone(), source: round.source.clone() };
    // The clock of the probes; the run has its own.
    let opening = Arc::new(Receipts::new(Instant::now(), Schedule { rate: None, seconds: 0.0 }));
    let skipped = SKIPPED_SECONDS.min(round.schedule.seconds / 4.0);
    let skip = round.schedule.rate.map_or(0, |rate| (rate * skipped) as u64);
    let mut readers = open_readers(mesh, round, skip, &opening)?;
    bar.set_message("opening the way");
    runtime.block_on(probe(&target, &template, &opening, readers.len() as u64))?;

    mesh.check()?;
    let start = Instant::now() + Duration::from_millis(5);
    let receipts = Arc::new(Receipts::new(start, round.schedule));
    readers.iter_mut().for_each(|reader| reader.begin(receipts.clone()));
    let before = (cpu_seconds(std::process::id()), mesh.cpu_seconds());
    let sending = runtime.spawn({
        let (template, schedule) = (template.clone(), round.schedule);
        async move { load::send(target, &template, schedule, start).await }
    });
    let sent = watch(mesh, sending, &receipts, readers.len() as u64, bar)?;
    let after = (cpu_seconds(std::process::id()), mesh.cpu_seconds());

    let cpu = Cpu::of(used(before.0, after.0), used_by_each(before.1, after.1));
    row(round, &readers, &receipts, sent, cpu)
}

/// A reader each, over at most [`CONNECTIONS_MAX`] connections to each node.
fn open_readers(
    mesh: &Mesh,
    round: &Round,
    skip: u64,
    receipts: &Arc<Receipts>,
) -> anyhow::Result<Vec<Reader>> {
    let mut clients: std::collections::BTreeMap<(usize, usize), RpcClient> =
        std::collections::BTreeMap::new();
    let mut readers = Vec::new();
    for (number, node) in round.readers.iter().enumerate() {
        let place = (*node, number % CONNECTIONS_MAX);
        let client = match clients.get(&place) {
            Some(client) => client.clone(),
            None => {
                let client = mesh.connect(*node)?;
                clients.insert(place, client.clone());
                client
            }
        };
        let reader = Reader::open(&client, &round.manifest.name, &round.stream, skip, receipts.clone());
        readers.push(mesh.runtime.block_on(reader)?);
    }
    Ok(readers)
}

/// One event through the whole way, so that no log, edge or connection is opened inside the run.
async fn probe(
    target: &Target,
    template: &Template,
    receipts: &Receipts,
    readers: u64,
) -> anyhow::Result<()> {
    let mut line = BytesMut::new();
    template.write(PROBE, 0, &mut line);
    target.publish(line).await.map_err(anyhow::Error::msg)?;
    let began = Instant::now();
    while receipts.probes.load(Ordering::Relaxed) < readers {
        failed(receipts)?;
        if began.elapsed() > OPEN_DEADLINE {
            bail!(
                "only {} of {readers} readers were reached within {} s: report this",
                receipts.probes.load(Ordering::Relaxed),
                OPEN_DEADLINE.as_secs()
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Waits until all is sent and read, or nothing comes any more. Answers with how many were sent.
fn watch(
    mesh: &mut Mesh,
    sending: tokio::task::JoinHandle<Result<u64, String>>,
    receipts: &Receipts,
    readers: u64,
    bar: &ProgressBar,
) -> anyhow::Result<u64> {
    let mut sent = None;
    let mut sending = Some(sending);
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let events = receipts.events.load(Ordering::Relaxed);
        if events > seen {
            (seen, moved) = (events, Instant::now());
        }
        if sending.as_ref().is_some_and(tokio::task::JoinHandle::is_finished)
            && let Some(sending) = sending.take()
        {
            let outcome = mesh.runtime.block_on(sending).context("the publisher broke off")?;
            sent = Some(outcome.map_err(anyhow::Error::msg)?);
            moved = Instant::now();
        }
        match sent {
            Some(sent) if events >= sent * readers || moved.elapsed() > STALL_DEADLINE => return Ok(sent),
            Some(_) | None => {}
        }
        failed(receipts)?;
        mesh.check()?;
        bar.set_message(format!("{events} events read"));
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn failed(receipts: &Receipts) -> anyhow::Result<()> {
    match &*receipts.failed.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(why) => bail!("a reader of the bench broke off: {why}"),
        None => Ok(()),
    }
}

fn row(round: &Round, readers: &[Reader], receipts: &Receipts, sent: u64, cpu: Cpu) -> anyhow::Result<Row> {
    let mut latency: Histogram<u64> = report::histogram()?;
    let (mut events, mut twice, mut missing, mut foreign) = (0, 0, 0, 0);
    for reader in readers {
        let (ledger, _) = &*reader.ledger();
        latency.add(&ledger.latency)?;
        events += ledger.events;
        twice += ledger.twice;
        missing += ledger.missing(sent);
        foreign += ledger.foreign;
    }
    if foreign > 0 {
        bail!("{foreign} events came that the bench never sent: report this");
    }
    let seconds = (receipts.last_ns.load(Ordering::Relaxed) as f64 / 1e9).max(1e-9);
    let mut unmeasured = Unmeasured::new();
    if latency.is_empty() {
        unmeasured.insert(Figure::LatencyUs, why_no_latency(round, events));
    }
    let per_million = cpu.per_million(events).map_err(|why| {
        unmeasured.insert(Figure::CpuSecondsPerMillion, why);
    });
    Ok(Row {
        scenario: round.scenario,
        durability: round.manifest.durability.to_string(),
        copies: round.manifest.copies,
        events,
        events_per_second: (events as f64 / seconds).round(),
        cpu_seconds: cpu,
        cpu_seconds_per_million: per_million.ok(),
        latency_us: Latency::of(&latency),
        unmeasured,
        missing,
        twice,
        seconds,
        parameters: round.parameters.clone(),
        idle: None,
        call: None,
        machine: Machine::this(),
    })
}

/// Of a run whose readers measured none.
fn why_no_latency(round: &Round, events: u64) -> String {
    if events == 0 {
        return "no event was read".to_string();
    }
    match round.schedule.rate {
        None => format!(
            "an event of {} bytes has no room for when it was due, and without a rate no schedule says it: measure with \
             --size {} or more, or at a --rate",
            round.size,
            payload::timed_size_min(round.keys)
        ),
        Some(_) => "only events from the beginning of the run came, which do not count for it".to_string(),
    }
}

pub fn used(before: Option<f64>, after: Option<f64>) -> f64 {
    let used = after.zip(before).map_or(0.0, |(after, before)| after - before);
    (used * 1000.0).round() / 1000.0
}

/// What each node used.
pub fn used_by_each(before: Option<Vec<f64>>, after: Option<Vec<f64>>) -> Vec<f64> {
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    after.iter().zip(&before).map(|(after, before)| used(Some(*before), Some(*after))).collect()
}
