//! P6: what a log holds that some reader has not passed is at most its retention plus one record.

use dunlin_protocol::id::Seq;
use dunlin_protocol::log::record::Body;

use crate::checkers::streams;
use crate::world::World;

/// What the log's writer counts as one step: see `MARK_BYTES` of the log's writer.
const STEP_BYTES: u64 = 64 << 10;

pub fn check(world: &World) -> Result<(), String> {
    let assignment = streams::assignment(world)?;
    let layouts = assignment.pipelines().values();
    for (layout, log) in layouts.flat_map(|layout| layout.logs.iter().map(move |log| (layout, log))) {
        let Some(kept) = world.index_of(log.node).and_then(|node| world.nodes[node].disk.logs.get(&log.id))
        else {
            continue;
        };
        let passed = layout.readers(log).map(|reader| {
            let node = world.index_of(reader.node).expect("placed on a node of this world");
            let mut at = Seq(0);
            for (_, body) in world.bodies(node, reader.id) {
                let Body::Commit(commit) = body else { continue };
                commit
                    .frontier
                    .iter()
                    .filter(|advance| advance.log == log.id)
                    .for_each(|advance| at = advance.to.seq);
            }
            at
        });
        let Some(passed) = passed.min() else { continue };
        let unread =
            kept.records.iter().filter(|record| record.seq > passed).map(|record| record.body.len() as u64);
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
