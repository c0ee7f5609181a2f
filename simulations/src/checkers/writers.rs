//! P3: one writer. A log of an actor is written on one node, in epochs that only grow, each begun by an
//! `EpochStart` of that node.

use std::collections::BTreeMap;

use dunlin_protocol::id::{Epoch, LogId};
use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::catalog::LogName;

use crate::world::World;

pub fn check(world: &World) -> Result<(), String> {
    let mut homes: BTreeMap<LogId, usize> = BTreeMap::new();
    for ((node, log), past) in world.history.logs() {
        if let LogName::Catalog(_) = past.name {
            continue;
        }
        if past.records.is_empty() {
            continue;
        }
        if let Some(other) = homes.insert(*log, *node) {
            return Err(format!("log {log} was written on n{other} and on n{node}"));
        }
        let mut epoch = Epoch(0);
        for kept in &past.kept {
            let record = kept.position;
            match &*kept.body {
                Body::EpochStart(start) => {
                    if record.epoch <= epoch || start.writer != world.nodes[*node].id {
                        return Err(format!(
                            "epoch {} of log {log} began behind epoch {} by {:?}",
                            record.epoch.0, epoch.0, start.writer
                        ));
                    }
                    epoch = record.epoch;
                }
                _ if record.epoch != epoch => {
                    return Err(format!(
                        "record {} of log {log} is of epoch {}, which nobody began",
                        record.seq.0, record.epoch.0
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
