//! The pipeline's layout, and a stream read from the history: what taps would see if retention had
//! kept everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{EventId, LogId, Position};
use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::assignment::{Assigned, Assignment, Layout, Line};
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::pipeline::plan::{Plan, SlotRange};
use dunlin_protocol::rpc::TailEvent;
use dunlin_protocol::rpc::tailed::Place;
use dunlin_protocol::wire::message::Filter;

use crate::world::World;

/// What the catalog of some node makes of the deployed pipelines.
pub fn assignment(world: &World) -> Result<Assignment, String> {
    let known = (0..world.nodes.len()).find_map(|node| known_by(world, node));
    known.ok_or_else(|| "no node is up at the end".into())
}

/// The same as one node knows it now; none while it is down.
pub fn known_by(world: &World, node: usize) -> Option<Assignment> {
    let peer = world.nodes[node].peer.as_ref()?;
    let mut assignment = Assignment::default();
    assignment.refresh(peer.catalog().facts(), |manifest| Some(Plan::of(manifest)));
    Some(assignment)
}

/// The logs that a line really had, in order: from its first, each closed one names the next.
pub fn path<'a>(world: &World, line: &'a Line) -> Result<Vec<&'a Arc<Assigned>>, String> {
    match walk(world, line) {
        (path, None) => Ok(path),
        (path, Some(_)) => Err(format!(
            "log {} ({:?} of {:?}) closes into a log of no revision",
            log_id(&path),
            line.unit,
            line.node
        )),
    }
}

/// As far as the layout knows the line, and the log behind if there is one that it does not know.
fn walk<'a>(world: &World, line: &'a Line) -> (Vec<&'a Arc<Assigned>>, Option<LogId>) {
    let node = world.index_of(line.node).expect("placed on a node of this world");
    let mut path = Vec::new();
    let mut next = line.first();
    while let Some(log) = next.filter(|log| world.history.past((node, log.id)).is_some()) {
        path.push(log);
        next = None;
        let last = world.history.kept((node, log.id)).last();
        if let Some(Body::Close { successor }) = last.map(|last| &*last.body) {
            next = line.log(successor);
            if next.is_none() {
                return (path, Some(*successor));
            }
        }
    }
    (path, None)
}

/// How far an actor has read, through all logs of its line that the layout knows.
pub fn frontier(world: &World, layout: &Layout, actor: &Assigned) -> BTreeMap<LogId, Position> {
    let mut frontier = BTreeMap::new();
    let Some(line) = layout.lines.get(actor.line) else { return frontier };
    let Some(node) = world.index_of(line.node) else { return frontier };
    for log in walk(world, line).0 {
        for kept in world.history.kept((node, log.id)) {
            if let Body::Commit(commit) = &*kept.body {
                frontier.extend(commit.frontier.iter().map(|advance| (advance.log, advance.to)));
            }
        }
    }
    frontier
}

fn log_id(path: &[&Arc<Assigned>]) -> LogId {
    path.last().map(|log| log.id).unwrap_or_default()
}

/// Every event of the stream, line by line and log by log.
pub fn in_history(world: &World, stream: &str) -> Result<Vec<TailEvent>, String> {
    let assignment = assignment(world)?;
    let mut events = Vec::new();
    let name = StreamName { base: stream.parse().expect("a legal name"), side: None };
    for line in assignment.pipelines().values().flat_map(|layout| layout.lines_of_stream(&name)) {
        for log in path(world, line)? {
            let outputs = log.unit.chain.outputs.iter().zip(0u16..);
            let outputs: Vec<u16> = outputs
                .filter(|(output, _)| output.rekeyed.is_none() && output.stream == name)
                .map(|(_, index)| index)
                .collect();
            let Some(node) = world.index_of(log.node) else { continue };
            let filter = Filter { outputs, slots: SlotRange::ALL };
            for kept in world.history.kept((node, log.id)) {
                let at = kept.position;
                for event in slice_of(kept, &filter).events {
                    let id = EventId { log: log.id, epoch: at.epoch, seq: at.seq, index: event.index };
                    let placed = Placed { id, event: event.event };
                    events.push(TailEvent { placed, place: Place::default() });
                }
            }
        }
    }
    Ok(events)
}
