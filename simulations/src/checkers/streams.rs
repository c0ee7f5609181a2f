//! The pipeline's layout, and a stream read from the history: what taps would see if retention had
//! kept everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{EventId, LogId, Position};
use dunlin_protocol::log::record::Body;
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::mesh::assignment::{Assigned, Assignment, Layout, Line};
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::pipeline::plan::{Plan, SlotRange};
use dunlin_protocol::rpc::{Cursor, TailEvent};
use dunlin_protocol::wire::message::Filter;

use crate::world::World;

/// What the catalog of some node makes of the deployed pipelines.
pub fn assignment(world: &World) -> Result<Assignment, String> {
    let peer = world.nodes.iter().find_map(|node| node.peer.as_ref()).ok_or("no node is up at the end")?;
    let mut assignment = Assignment::default();
    assignment.refresh(peer.catalog().facts(), |manifest| Some(Plan::of(manifest)));
    Ok(assignment)
}

/// The logs that a line really had, in order: from its first, each closed one names the next.
pub fn path<'a>(world: &World, line: &'a Line) -> Result<Vec<&'a Arc<Assigned>>, String> {
    let node = world.index_of(line.node).expect("placed on a node of this world");
    let mut path = Vec::new();
    let mut next = line.first();
    while let Some(log) = next.filter(|log| world.history.past((node, log.id)).is_some()) {
        path.push(log);
        next = None;
        for (_, body) in world.history.bodies((node, log.id)) {
            if let Body::Close { successor } = body {
                let of = |id| format!("log {id} ({:?} on n{node})", line.unit);
                let log = line.log(&successor);
                next = Some(
                    log.ok_or_else(|| format!("{} closes into a log of no revision", of(log_id(&path))))?,
                );
            }
        }
    }
    Ok(path)
}

/// How far an actor has read, through all logs that its line had.
pub fn frontier(
    world: &World,
    layout: &Layout,
    actor: &Assigned,
) -> Result<BTreeMap<LogId, Position>, String> {
    let mut frontier = BTreeMap::new();
    let Some(line) = layout.lines.get(actor.line) else { return Ok(frontier) };
    let Some(node) = world.index_of(line.node) else { return Ok(frontier) };
    for log in path(world, line)? {
        for (_, body) in world.history.bodies((node, log.id)) {
            if let Body::Commit(commit) = body {
                frontier.extend(commit.frontier.iter().map(|advance| (advance.log, advance.to)));
            }
        }
    }
    Ok(frontier)
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
            let records = world.history.records((node, log.id));
            let filter = Filter { outputs, slots: SlotRange::ALL };
            for record in records.iter().filter_map(Kept::of) {
                let at = record.position;
                for event in slice_of(&record, &filter).events {
                    let id = EventId { log: log.id, epoch: at.epoch, seq: at.seq, index: event.index };
                    let placed = Placed { id, event: event.event };
                    events.push(TailEvent { placed, cursor: Cursor::default() });
                }
            }
        }
    }
    Ok(events)
}
