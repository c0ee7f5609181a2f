//! `dunlin demo`: the main job, end to end, on this machine.
//!
//! Nothing here is a shortcut: the nodes are processes of this program, they join with a token, the
//! pipeline goes in through the API and so do the fares, and what comes out is read from the
//! streams as any client reads them. Whatever happens, the nodes are stopped and their files go.

mod live;
mod scores;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use dunlin_protocol::id::{Digest, Name};
use dunlin_protocol::limits::EDGE_CREDIT_BYTES;
use dunlin_protocol::pipeline::manifest::{Manifest, Module, Operator, StreamName};
use dunlin_protocol::rpc::{Request, Response, Shown, Tail, TailFrom};
use indicatif::ProgressBar;

use super::arguments::{DemoArguments, Place};
use super::children::{Children, Interrupt, Start};
use super::client::{Client, Failure};
use super::deploy::{self, PipelineFile};
use super::fares::{self, Simulation};
use super::http_client::HttpClient;
use super::inspect::wrong_answer;
use super::output::Output;
use super::publish::{Chunk, Publisher};
use crate::api::streams::stream_name;
use live::{Live, SharedScores, work};
use scores::{Scores, Summary};

/// The pipeline, as a user deploys it.
const PIPELINE_TEXT: &str = include_str!("../../../../examples/pipelines/fare-watch.toml");
const PIPELINE_FILE: &str = "fare-watch.toml";
const NODES: usize = 3;
/// Fares per request.
const CHUNK_LINES: usize = 1000;
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The pipeline is done when nothing moved, and nothing waited, this many looks in a row.
const CALM_LOOKS: u32 = 6;
/// Without any progress for so long something is wrong.
const STALL_DEADLINE: Duration = Duration::from_secs(90);

pub fn run(arguments: &DemoArguments, clean_wasm: &[u8], out: &Output) -> anyhow::Result<()> {
    let (input, lines) = match &arguments.fares {
        Some(file) => ("real", fares::real(file)?),
        None => ("simulated", fares::simulated(Simulation::default())),
    };
    let began = Instant::now();
    let mut children = Children::new(Interrupt::listen("demo")?)?;
    let shared = SharedScores::default();
    let mut live = Live::new(out, SharedScores::clone(&shared));
    let outcome = carry_out(&mut children, &mut live, shared, clean_wasm, lines);
    live.clear();
    let (events, shown, predictions, scores) = outcome?;
    let summary = Summary {
        input,
        events,
        predictions,
        settled: scores.settled,
        mae: scores.mae(),
        mae_last_value: scores.mae_last_value(),
        auc: scores.auc(),
        seconds: began.elapsed().as_secs_f64(),
        nodes: work(&shown, &children.ids()),
    };
    drop(children);
    print(&summary, out)
}

/// What the summary is made of: events in, how the pipeline stands, predictions, scores.
type Outcome = (u64, Shown, u64, Scores);

fn carry_out(
    children: &mut Children,
    live: &mut Live,
    shared: SharedScores,
    clean_wasm: &[u8],
    lines: Vec<String>,
) -> anyhow::Result<Outcome> {
    live.say("starting node 1");
    children.start(Start::default())?;
    let token = children.token()?;
    for number in 2..=NODES {
        live.say(&format!("starting node {number}, which joins with a token"));
        children.start(Start { join: Some(&token), ..Start::default() })?;
    }
    let client = children.client()?;
    live.say("the nodes meet");
    children.meet(&client)?;
    live.say("deploying fare-watch");
    let manifest = manifest(&client, clean_wasm)?;
    let pipeline = manifest.name.clone();
    let file = PipelineFile { text: PIPELINE_TEXT, name: Path::new(PIPELINE_FILE), base: Path::new("") };
    // One bar is on the terminal already, and two would leave their lines behind.
    deploy::send(&client, manifest, &file, &ProgressBar::hidden())?;

    watch_scores(client.clone(), pipeline.clone(), shared);
    let events = lines.len() as u64;
    let place = Place { pipeline: pipeline.clone(), name: "quotes".parse()? };
    let publishing = thread::spawn({
        let client = client.clone();
        move || publish(&client, place, &lines)
    });
    let shown = wait_until_calm(children, live, &client, &pipeline, events, &publishing)?;
    match publishing.join() {
        Ok(acknowledged) => {
            let acknowledged = acknowledged?;
            if acknowledged != events {
                bail!("of {events} fares only {acknowledged} were taken: see the lines above");
            }
        }
        Err(_) => bail!("publishing broke off: report this"),
    }
    let mut predictions = 0;
    read_all(&client, &pipeline, "outlook", |_| predictions += 1)?;
    let mut scores = Scores::default();
    read_all(&client, &pipeline, "outlook.scores", |payload| scores.add(payload))?;
    Ok((events, shown, predictions, scores))
}

/// The pipeline file with its module uploaded: the demo carries the function in itself.
fn manifest(client: &HttpClient, clean_wasm: &[u8]) -> anyhow::Result<Manifest> {
    let mut manifest = Manifest::from_toml(PIPELINE_TEXT, PIPELINE_FILE)?;
    let digest = Digest::of(clean_wasm);
    if !client.has_module(digest)? {
        client.put_module(clean_wasm).context("the demo's function was refused")?;
    }
    for stage in manifest.stages.values_mut() {
        if let Operator::Wasm(wasm) = &mut stage.operator {
            wasm.module = Module::Digest(digest);
        }
    }
    Ok(manifest)
}

/// Follows the settled predictions for the live table, until the nodes stop.
fn watch_scores(client: HttpClient, pipeline: Name, shared: SharedScores) {
    thread::spawn(move || {
        let Ok(events) = tail(&client, &pipeline, "outlook.scores", true) else { return };
        for event in events.map_while(Result::ok) {
            let mut scores = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            scores.add(&event.placed.event.payload);
        }
    });
}

fn tail(
    client: &HttpClient,
    pipeline: &Name,
    stream: &str,
    follow: bool,
) -> anyhow::Result<super::client::TailEvents> {
    let stream: StreamName = stream_name(stream).map_err(anyhow::Error::msg)?;
    let tail = Tail {
        pipeline: pipeline.clone(),
        stream,
        from: TailFrom::Start,
        limit: None,
        follow,
        credit: EDGE_CREDIT_BYTES,
    };
    Ok(client.tail(tail)?)
}

fn read_all(
    client: &HttpClient,
    pipeline: &Name,
    stream: &str,
    mut take: impl FnMut(&[u8]),
) -> anyhow::Result<()> {
    for event in tail(client, pipeline, stream, false)? {
        take(&event.with_context(|| format!("reading {stream}"))?.placed.event.payload);
    }
    Ok(())
}

/// The acknowledged fares.
fn publish(client: &HttpClient, place: Place, lines: &[String]) -> Result<u64, Failure> {
    let mut publisher = Publisher::new(client, place, None);
    for lines in lines.chunks(CHUNK_LINES) {
        let count = lines.len() as u64;
        let lines = Bytes::from(lines.join("\n") + "\n");
        let rejected = publisher.send(Chunk { lines, count, too_long: Vec::new() })?;
        rejected.iter().for_each(|text| super::output::note(text));
    }
    Ok(publisher.acknowledged)
}

/// Watches until every fare has gone through every stage.
fn wait_until_calm(
    children: &mut Children,
    live: &mut Live,
    client: &HttpClient,
    pipeline: &Name,
    events: u64,
    publishing: &thread::JoinHandle<Result<u64, Failure>>,
) -> anyhow::Result<Shown> {
    let ids = children.ids();
    let interrupt = children.interrupt();
    let mut calm = 0;
    let mut before = 0;
    let mut moved = Instant::now();
    loop {
        children.check()?;
        let shown = match client.ask(Request::Show { pipeline: pipeline.clone() }) {
            Ok(Response::Shown(shown)) => shown,
            Ok(other) => return Err(wrong_answer(&other)),
            Err(failure) => return Err(failure).context("node 1 does not say how the pipeline stands"),
        };
        live.draw(&shown, &ids);
        let actors = || shown.stages.iter().flat_map(|stage| &stage.actors);
        let lag: u64 = actors().map(|actor| actor.lag).sum();
        let now: u64 = actors().map(|actor| actor.events_in).sum();
        if now != before {
            (before, moved, calm) = (now, Instant::now(), 0);
        }
        let through = |stage: &str| -> u64 {
            let stage = shown.stages.iter().find(|shown| shown.stage == stage);
            stage.map_or(0, |stage| stage.actors.iter().map(|actor| actor.events_in).sum())
        };
        let whole = publishing.is_finished() && through("clean") >= events && through("outlook") > 0;
        calm = if whole && lag == 0 { calm + 1 } else { 0 };
        if calm >= CALM_LOOKS {
            return Ok(shown);
        }
        if publishing.is_finished() && moved.elapsed() > Duration::from_secs(1) && before == 0 {
            // Publishing failed at once: its own sentence says more than a stall would.
            return Ok(shown);
        }
        if moved.elapsed() > STALL_DEADLINE {
            let trouble = actors().find_map(|actor| actor.trouble.clone());
            bail!(
                "nothing moved for {} s and {lag} events wait{}: report this",
                STALL_DEADLINE.as_secs(),
                trouble.map_or(String::new(), |trouble| format!(" ({trouble})"))
            );
        }
        interrupt.pause(LOOK_AGAIN)?;
    }
}

fn print(summary: &Summary, out: &Output) -> anyhow::Result<()> {
    if out.json {
        return out.object(summary);
    }
    let number = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "-".to_string(),
    };
    let fares = match summary.input {
        "real" => format!("{} real fares", summary.events),
        _ => format!("{} simulated fares (real ones: --fares FILE)", summary.events),
    };
    out.line(&format!("{fares} through {} nodes in {:.1} s", summary.nodes.len(), summary.seconds))?;
    out.line(&format!("{} predictions, {} settled", summary.predictions, summary.settled))?;
    out.line(&format!(
        "mean absolute error {}, \"price stays\" {}; AUC of \"rises by 5 %\" {}",
        number(summary.mae, 2),
        number(summary.mae_last_value, 2),
        number(summary.auc, 3)
    ))?;
    let row = |node: &scores::NodeWork| {
        vec![
            node.node.clone(),
            node.commits.to_string(),
            node.events_in.to_string(),
            node.events_out.to_string(),
        ]
    };
    out.table(&["NODE", "COMMITS", "IN", "OUT"], summary.nodes.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_pipeline_is_a_valid_file() {
        let manifest = Manifest::from_toml(PIPELINE_TEXT, PIPELINE_FILE).unwrap();
        assert_eq!(manifest.name.as_str(), "fare-watch");
        dunlin_operators::check::check(&manifest).unwrap();
    }
}
