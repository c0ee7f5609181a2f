//! P6: what a log holds that some reader has not passed is at most its retention plus one record.

use dunlin_protocol::id::Seq;

use crate::checkers::streams;
use crate::world::World;

/// What the log's writer counts as one step: see `MARK_BYTES` of the log's writer.
const STEP_BYTES: u64 = 64 << 10;

pub fn check(world: &World) -> Result<(), String> {
    let assignment = streams::assignment(world)?;
    let layouts = assignment.pipelines().values();
    for (layout, log) in layouts.flat_map(|layout| layout.logs.iter().map(move |log| (layout, log))) {
        let Some(node) = world.index_of(log.node) else { continue };
        let records = world.history.records((node, log.id));
        let mut passed = Vec::new();
        for reader in layout.readers(log) {
            let frontier = streams::frontier(world, layout, reader)?;
            passed.push(frontier.get(&log.id).map_or(Seq(0), |at| at.seq));
        }
        let Some(passed) = passed.into_iter().min() else { continue };
        let unread =
            records.iter().filter(|record| record.seq > passed).map(|record| record.body.len() as u64);
        let (unread, largest) =
            unread.fold((0, 0), |(sum, largest), bytes| (sum + bytes, bytes.max(largest)));
        let bound = log.manifest.retention.bytes + largest + STEP_BYTES;
        if unread > bound {
            return Err(format!(
                "log {} ({:?}) holds {unread} unread bytes, its bound is {bound}",
                log.id, log.unit.id
            ));
        }
    }
    Ok(())
}
