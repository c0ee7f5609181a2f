//! P4, P5: a source that fell silent says so in its log, whatever the clocks of its node's lives
//! showed, so that it holds nobody's watermark back.

use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::plan::Role;

use crate::world::World;

/// `removed`: a node that was given up; it is dead.
pub fn check(world: &World, removed: Option<usize>) -> Result<(), String> {
    for (place, past) in world.history.logs().filter(|((node, _), _)| Some(*node) != removed) {
        let LogName::Actor { pipeline, unit, .. } = &past.name else { continue };
        if unit.role != Role::Source || pipeline.as_str() != "sim" {
            continue;
        }
        let mut bodies = world.history.kept(*place).iter().rev().map(|kept| &*kept.body).peekable();
        if matches!(bodies.peek(), Some(Body::Close { .. })) {
            continue;
        }
        let mut appends = bodies.filter_map(|body| match body {
            Body::Append(append) => Some(append),
            Body::EpochStart(_)
            | Body::Commit(_)
            | Body::Close { .. }
            | Body::Inherit(_)
            | Body::Catalog { .. } => None,
        });
        if appends.next().is_some_and(|append| !append.idle) {
            return Err(format!("source log {} of n{} is silent and not marked idle", place.1, place.0));
        }
    }
    Ok(())
}
