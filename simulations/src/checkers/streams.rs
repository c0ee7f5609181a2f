//! The pipeline's layout, and a stream read straight from the disks: what taps would see if
//! retention had kept everything.

use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::EventId;
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::mesh::assignment::Assignment;
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

/// Every event of the stream, log by log.
pub fn on_disk(world: &World, stream: &str) -> Result<Vec<TailEvent>, String> {
    let assignment = assignment(world)?;
    let mut events = Vec::new();
    for log in assignment.pipelines().keys().flat_map(|pipeline| assignment.all_logs(pipeline)) {
        let outputs = log.unit.chain.outputs.iter().zip(0u16..);
        let outputs: Vec<u16> = outputs
            .filter(|(output, _)| output.rekeyed.is_none() && output.stream.to_string() == stream)
            .map(|(_, index)| index)
            .collect();
        let Some(kept) = world.index_of(log.node).and_then(|node| world.nodes[node].disk.logs.get(&log.id))
        else {
            continue;
        };
        let filter = Filter { outputs, slots: SlotRange::ALL };
        for record in kept.records.iter().filter_map(Kept::of) {
            let at = record.position;
            for event in slice_of(&record, &filter).events {
                let id = EventId { log: log.id, epoch: at.epoch, seq: at.seq, index: event.index };
                events
                    .push(TailEvent { placed: Placed { id, event: event.event }, cursor: Cursor::default() });
            }
        }
    }
    Ok(events)
}
