//! A removed pipeline leaves nothing behind: no disk holds a log of it.

use dunlin_protocol::mesh::catalog::LogName;

use crate::world::World;

pub fn check(world: &World) -> Result<(), String> {
    for (index, node) in world.nodes.iter().enumerate() {
        for (log, kept) in node.disk.folders() {
            if let LogName::Actor { pipeline, unit, .. } = &kept.name {
                return Err(format!(
                    "n{index} still holds log {log} ({unit:?}) of the removed pipeline {pipeline}"
                ));
            }
        }
    }
    Ok(())
}
