//! `nodes`, `status`, `pipelines`, `show`, `remove`, `state`: what is there.

use dunlin_protocol::id::Name;
use dunlin_protocol::rpc::{ActorStatus, FanOut, Request, Response};
use serde::Serialize;

use super::arguments::StateArguments;
use super::client::{Client, ask_patiently};
use super::nodes::sentences;
use super::output::{Output, bytes_text, short};
use super::running::{self, Learned};
use crate::api::door::unexpected;
use crate::api::json::{
    NodeJson, PipelineJson, RemovedJson, ShownJson, StateJson, StatusJson, pipeline_word,
};

/// What is left to say when a node answers something else than was asked.
pub fn wrong_answer(response: &Response) -> anyhow::Error {
    anyhow::anyhow!(unexpected(response).detail)
}

pub fn nodes(client: &dyn Client, out: &Output) -> anyhow::Result<()> {
    let nodes = match client.ask(Request::Nodes)? {
        Response::Nodes(nodes) => nodes,
        other => return Err(wrong_answer(&other)),
    };
    let nodes: Vec<NodeJson> = nodes.iter().map(NodeJson::from).collect();
    if out.json {
        return nodes.iter().try_for_each(|node| out.object(node));
    }
    let row = |node: NodeJson| {
        let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        // Who cannot be asked may have any number of them.
        let actors = if node.state == "alive" { node.actors.to_string() } else { "-".to_string() };
        vec![node.node, node.state, actors, labels.join(","), node.addresses.join(" ")]
    };
    out.table(&["NODE", "STATE", "ACTORS", "LABELS", "ADDRESSES"], nodes.into_iter().map(row).collect())
}

pub fn status(client: &dyn Client, out: &Output) -> anyhow::Result<()> {
    let status = match client.ask(Request::Status)? {
        Response::Status(status) => StatusJson::from(&status),
        other => return Err(wrong_answer(&other)),
    };
    if out.json {
        return out.object(&status);
    }
    out.line(&format!("node       {}", status.node))?;
    out.line(&format!("mesh       {}", status.mesh))?;
    out.line(&format!("version    {}", status.version))?;
    out.line(&format!("peers      {}", status.peers))?;
    out.line(&format!("pipelines  {}", status.pipelines))?;
    out.line(&format!("memory     {}", bytes_text(status.rss_bytes)))?;
    out.line(&format!("disk       {}", bytes_text(status.disk_bytes)))?;
    out.line(&format!("uptime     {:.0} s", status.uptime_seconds))?;
    status.troubles.iter().try_for_each(|trouble| out.line(&format!("trouble    {trouble}")))
}

pub fn pipelines(client: &dyn Client, out: &Output) -> anyhow::Result<()> {
    let pipelines = match client.ask(Request::Pipelines)? {
        Response::Pipelines(pipelines) => pipelines,
        other => return Err(wrong_answer(&other)),
    };
    let pipelines: Vec<PipelineJson> = pipelines.iter().map(PipelineJson::from).collect();
    if out.json {
        return pipelines.iter().try_for_each(|pipeline| out.object(pipeline));
    }
    let row = |pipeline: PipelineJson| {
        let revision = pipeline.revision.chars().take(12).collect();
        vec![pipeline.pipeline, pipeline.state, pipeline.actors.to_string(), revision]
    };
    out.table(&["PIPELINE", "STATE", "ACTORS", "REVISION"], pipelines.into_iter().map(row).collect())
}

pub fn show(client: &dyn Client, pipeline: Name, out: &Output) -> anyhow::Result<()> {
    let shown = match client.ask(Request::Show { pipeline: pipeline.clone() })? {
        Response::Shown(shown) => shown,
        other => return Err(wrong_answer(&other)),
    };
    let given_up = match client.ask(Request::GivenUp { pipeline: Some(pipeline) })? {
        Response::GivenUp(given_up) => given_up,
        other => return Err(wrong_answer(&other)),
    };
    let learned = running::learned(client, &shown);
    if out.json {
        let shown = ShownJson::from(&shown).with(&given_up);
        return out.object(&ShownAndLearned { shown, learned });
    }
    out.line(&format!(
        "{} is {}, revision {}, durability {}, copies {}",
        shown.pipeline,
        pipeline_word(shown.state),
        shown.revision,
        shown.durability,
        shown.copies
    ))?;
    let mut rows = Vec::new();
    let mut troubles = Vec::new();
    for stage in &shown.stages {
        let from = if stage.from.is_empty() { "-".to_string() } else { stage.from.join(",") };
        if stage.actors.is_empty() {
            rows.push(vec![stage.stage.clone(), from.clone(), "-".into(), "none yet".into()]);
        }
        for actor in &stage.actors {
            // Of one that cannot be asked nothing is known but what waits for it elsewhere.
            let known = actor.epoch > 0 || actor.trouble.is_none();
            let figure = |figure: u64| if known { figure.to_string() } else { "-".to_string() };
            let lag = if actor.lag > 0 { actor.lag.to_string() } else { figure(0) };
            rows.push(vec![
                stage.stage.clone(),
                from.clone(),
                fan_out(stage.fan_out),
                actor.actor.to_string().chars().take(8).collect(),
                short(&actor.node.to_string()),
                figure(actor.events_in),
                figure(actor.events_out),
                lag,
                figure(actor.committed),
                actor.watermark.map_or_else(|| "-".to_string(), |time| time.to_string()),
                errors(actor),
            ]);
            if let Some(trouble) = &actor.trouble {
                troubles.push(format!("{}: {trouble}", stage.stage));
            }
        }
    }
    let header =
        ["STAGE", "FROM", "FAN-OUT", "ACTOR", "NODE", "IN", "OUT", "LAG", "COMMITTED", "WATERMARK", "ERRORS"];
    out.table(&header, rows)?;
    troubles.iter().try_for_each(|trouble| out.line(trouble))?;
    running::table(&learned, out)?;
    for lost in &shown.superseded {
        out.line(&format!(
            "superseded: revision {}, deployed on node {} while it was cut off, lost to the one that stands; \
             deploy it again if it should run",
            lost.revision, lost.node
        ))?;
    }
    given_up.iter().flat_map(sentences).try_for_each(|text| out.line(&text))
}

/// How a stage's stream goes to the nodes that tap it; `-` for none.
fn fan_out(fan_out: Option<FanOut>) -> String {
    match fan_out {
        None => "-".to_string(),
        Some(FanOut::Direct) => "direct".to_string(),
        Some(FanOut::Gossip { nodes: 1 }) => "gossip to 1 node".to_string(),
        Some(FanOut::Gossip { nodes }) => format!("gossip to {nodes} nodes"),
    }
}

#[derive(Debug, Serialize)]
struct ShownAndLearned {
    #[serde(flatten)]
    shown: ShownJson,
    /// How its learning stages do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learned: Vec<Learned>,
}

/// What an actor could not take, in words; `-` for nothing.
fn errors(actor: &ActorStatus) -> String {
    let counts = [(actor.parked, "parked"), (actor.dead, "dead"), (actor.rejected, "rejected")];
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if words.is_empty() { "-".to_string() } else { words.join(", ") }
}

pub fn remove(client: &dyn Client, pipeline: Name, out: &Output) -> anyhow::Result<()> {
    let pipeline = match ask_patiently(client, Request::Remove { pipeline })? {
        Response::Removed { pipeline } => pipeline,
        other => return Err(wrong_answer(&other)),
    };
    match out.json {
        true => out.object(&RemovedJson { pipeline, removed: true }),
        false => out.line(&format!("removed {pipeline}")),
    }
}

pub fn state(client: &dyn Client, arguments: StateArguments, out: &Output) -> anyhow::Result<()> {
    let StateArguments { stage, key, limit } = arguments;
    let one = key.is_some();
    let request = Request::State { pipeline: stage.pipeline.clone(), stage: stage.name.clone(), key, limit };
    let entries = match client.ask(request)? {
        Response::State(entries) => entries,
        other => return Err(wrong_answer(&other)),
    };
    if one && entries.is_empty() {
        anyhow::bail!(
            "stage '{}' of '{}' keeps nothing under this key: list its keys with 'dunlin state {}/{}'",
            stage.name,
            stage.pipeline,
            stage.pipeline,
            stage.name
        );
    }
    for entry in entries.iter().map(StateJson::from) {
        match (out.json, one) {
            (true, _) => out.object(&entry)?,
            (false, true) => out.line(entry.value.get())?,
            (false, false) => out.line(&format!("{}\t{}", entry.key, entry.value.get()))?,
        }
    }
    Ok(())
}
