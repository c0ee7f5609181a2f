//! P6: what a log holds that some reader has not passed is at most its retention plus one record.

use std::sync::Arc;

use dunlin_protocol::id::Seq;
use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::assignment::{Assigned, Layout};

use crate::checkers::streams;
use crate::world::World;

/// What the log's writer counts as one step: see `MARK_BYTES` of the log's writer.
const STEP_BYTES: u64 = 64 << 10;

/// While the run goes on: each writer by what it knows of its readers.
pub fn check(world: &World) -> Result<(), String> {
    for node in 0..world.nodes.len() {
        let Some(assignment) = streams::known_by(world, node) else { continue };
        for layout in assignment.pipelines().values() {
            let mut own = layout.logs.iter().filter(|log| log.node == world.nodes[node].id);
            own.try_for_each(|log| check_log(world, node, layout, log))?;
        }
    }
    Ok(())
}

fn check_log(world: &World, node: usize, layout: &Layout, log: &Assigned) -> Result<(), String> {
    let Some(folder) = world.nodes[node].disk.folder(log.id) else { return Ok(()) };
    let position = |reader: &Arc<Assigned>| {
        let frontier = streams::frontier(world, layout, reader);
        let at = frontier.get(&log.id).map_or(Seq(0), |at| at.seq);
        // What a crash took of the reader's tail is unread again, and was written when it was not.
        at.max(had_passed(world, layout, reader, log))
    };
    let Some(passed) = layout.readers(log).map(position).min() else { return Ok(()) };
    // Who reads from the start begins with what is kept.
    let passed = passed.max(Seq(folder.first().0.saturating_sub(1)));
    let unread = world.history.kept_behind((node, log.id), passed).iter().map(|kept| kept.bytes as u64);
    let (unread, largest) = unread.fold((0, 0), |(sum, largest), bytes| (sum + bytes, bytes.max(largest)));
    let bound = log.manifest.retention.bytes + largest + STEP_BYTES;
    match unread > bound {
        false => Ok(()),
        true => Err(format!(
            "log {} ({:?}) holds {unread} unread bytes, its bound is {bound}",
            log.id, log.unit.id
        )),
    }
}

/// How far the reader had come in the log by what it lost.
fn had_passed(world: &World, layout: &Layout, reader: &Assigned, log: &Assigned) -> Seq {
    let logs = layout.lines.get(reader.line).into_iter().flat_map(|line| &line.logs);
    let places = logs.filter_map(|of| Some((world.index_of(of.node)?, of.id)));
    let lost = places.filter_map(|place| world.history.lost.get(&place)).flatten();
    let advances = lost.flat_map(|kept| match &*kept.body {
        Body::Commit(commit) => commit.frontier.as_slice(),
        Body::EpochStart(_)
        | Body::Append(_)
        | Body::Close { .. }
        | Body::Inherit(_)
        | Body::Catalog { .. } => &[],
    });
    advances.filter(|advance| advance.log == log.id).map(|advance| advance.to.seq).max().unwrap_or_default()
}
