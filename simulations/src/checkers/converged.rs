//! P5: once everything has healed, every node knows the same facts, takes every other for alive, and
//! nothing is under way that nobody waits for.

use dunlin_protocol::mesh::membership::Liveness;

use crate::world::World;

/// `removed`: a node that was given up; what it knows is its own affair.
pub fn check(world: &World, removed: Option<usize>) -> Result<(), String> {
    let mut heads = None;
    let counts = |index: &usize| Some(*index) != removed;
    for (index, node) in world.nodes.iter().enumerate().filter(|(index, _)| counts(index)) {
        let Some(peer) = &node.peer else { return Err(format!("n{index} is down")) };
        let ours = peer.catalog().heads();
        match &heads {
            None => heads = Some(ours),
            Some(first) if *first == ours => {}
            Some(_) => return Err(format!("n{index} and n0 hold different catalogs")),
        }
        for (other, seen) in
            world.nodes.iter().enumerate().filter(|(other, _)| *other != index && counts(other))
        {
            let liveness = peer.membership().liveness(&seen.id);
            if liveness != Liveness::Alive {
                return Err(format!("n{index} takes n{other} for {liveness:?}"));
            }
        }
        for (what, count) in peer.under_way() {
            if count > 0 {
                return Err(format!("n{index} still holds {count} {what}"));
            }
        }
    }
    Ok(())
}
