//! P5: once everything has healed, every actor has read every upstream log to its end. What nodes say
//! of their lag is what they heard last; this is what is so.

use super::streams;
use crate::world::World;

pub fn check(world: &World) -> Result<(), String> {
    let assignment = streams::assignment(world)?;
    for layout in assignment.pipelines().values() {
        for actor in &layout.logs {
            let frontier = streams::frontier(world, layout, actor);
            // What a node that was given up held is not waited for.
            for line in layout.read_by(actor).filter(|line| !line.gone) {
                let Some(writer) = world.index_of(line.node) else { continue };
                let Some(log) = streams::path(world, line)?.pop() else { continue };
                if layout.inputs(actor, log).is_none() {
                    continue;
                }
                let head = world.history.past((writer, log.id)).map(|past| past.head()).unwrap_or_default();
                let at = frontier.get(&log.id).copied().unwrap_or_default();
                if at != head {
                    return Err(format!(
                        "{:?} has read log {} of n{writer} up to record {}, it ends at record {}",
                        actor.unit.id, log.id, at.seq.0, head.seq.0
                    ));
                }
            }
        }
    }
    Ok(())
}
