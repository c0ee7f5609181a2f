//! The demo's live table: events, rate and lag per stage, work per node, the error beside "price stays".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_protocol::id::LogId;
use dunlin_protocol::rpc::{ActorStatus, Shown};
use indicatif::ProgressBar;

use super::scores::{NodeWork, Scores};
use crate::cli::output::{Output, progress, short};

/// What the tap on `outlook.scores` has seen so far.
pub type SharedScores = Arc<Mutex<Scores>>;

/// Redraws on a terminal and is silent elsewhere.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
    out: Output,
    scores: SharedScores,
    before: Option<(Instant, BTreeMap<String, u64>)>,
    rates: BTreeMap<String, f64>,
}

impl Live {
    pub fn new(out: &Output, scores: SharedScores) -> Live {
        let bar = if out.json { ProgressBar::hidden() } else { progress(None, "") };
        bar.enable_steady_tick(Duration::from_millis(200));
        Live { bar, out: *out, scores, before: None, rates: BTreeMap::new() }
    }

    /// What happens before there is a table.
    pub fn say(&self, text: &str) {
        self.bar.set_message(text.to_string());
    }

    pub fn draw(&mut self, shown: &Shown, ids: &[String]) {
        if self.bar.is_hidden() {
            return;
        }
        self.measure(shown);
        let stage_rows = shown.stages.iter().map(|stage| {
            let sum = |number: fn(&ActorStatus) -> u64| stage.actors.iter().map(number).sum::<u64>();
            let mut on: Vec<String> =
                stage.actors.iter().map(|actor| node_name(&actor.node.to_string(), ids)).collect();
            on.sort();
            on.dedup();
            vec![
                stage.stage.clone(),
                sum(|actor| actor.events_in).to_string(),
                format!("{:.0}/s", self.rates.get(&stage.stage).copied().unwrap_or(0.0)),
                sum(|actor| actor.lag).to_string(),
                on.join(" "),
            ]
        });
        let stages = self.out.table_text(&["STAGE", "EVENTS", "RATE", "LAG", "ON"], stage_rows.collect());
        let node_rows = work(shown, ids).into_iter().map(|node| {
            vec![
                format!("{} {}", node_name(&node.node, ids), short(&node.node)),
                node.commits.to_string(),
                node.events_in.to_string(),
                node.events_out.to_string(),
            ]
        });
        let nodes = self.out.table_text(&["NODE", "COMMITS", "IN", "OUT"], node_rows.collect());
        let scores = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match (scores.mae(), scores.mae_last_value()) {
            (Some(mae), Some(last)) => {
                format!("{} settled, mean absolute error {mae:.2}, \"price stays\" {last:.2}", scores.settled)
            }
            _ => "nothing settled yet".to_string(),
        };
        self.bar.set_message(format!("\n{stages}\n\n{nodes}\n\n{error}"));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn measure(&mut self, shown: &Shown) {
        let now = Instant::now();
        let totals: BTreeMap<String, u64> = shown
            .stages
            .iter()
            .map(|stage| (stage.stage.clone(), stage.actors.iter().map(|actor| actor.events_in).sum()))
            .collect();
        if let Some((then, before)) = &self.before {
            let seconds = now.duration_since(*then).as_secs_f64().max(0.001);
            for (stage, total) in &totals {
                let gained = total.saturating_sub(before.get(stage).copied().unwrap_or(0));
                let rate = self.rates.entry(stage.clone()).or_default();
                *rate = 0.5 * *rate + 0.5 * gained as f64 / seconds;
            }
        }
        self.before = Some((now, totals));
    }
}

/// `node 1` for the first that started, and so on.
fn node_name(id: &str, ids: &[String]) -> String {
    match ids.iter().position(|known| known == id) {
        Some(place) => format!("node {}", place + 1),
        None => short(id),
    }
}

/// What each node did, in the order of `ids`. A fused stage shares its actor with others: each
/// actor counts once.
pub fn work(shown: &Shown, ids: &[String]) -> Vec<NodeWork> {
    let mut actors: BTreeMap<LogId, &ActorStatus> = BTreeMap::new();
    for actor in shown.stages.iter().flat_map(|stage| &stage.actors) {
        actors.entry(actor.actor).or_insert(actor);
    }
    let mut nodes: Vec<NodeWork> =
        ids.iter().map(|id| NodeWork { node: id.clone(), ..NodeWork::default() }).collect();
    for actor in actors.into_values() {
        let id = actor.node.to_string();
        if let Some(node) = nodes.iter_mut().find(|node| node.node == id) {
            node.commits += actor.committed;
            node.events_in += actor.events_in;
            node.events_out += actor.events_out;
        }
    }
    nodes
}
