//! P1: every acknowledged event stands in its source log, once.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::plan::Role;

use crate::workload::{Publisher, acknowledged};
use crate::world::World;

pub fn check(world: &World, publishers: &[Publisher]) -> Result<u64, String> {
    let mut found: BTreeMap<Bytes, u64> = BTreeMap::new();
    for (_, past) in world.history.logs() {
        let LogName::Actor { unit, .. } = &past.name else { continue };
        if unit.role != Role::Source {
            continue;
        }
        for kept in &past.kept {
            if let Body::Append(append) = &*kept.body {
                append.events.iter().for_each(|event| *found.entry(event.payload.clone()).or_default() += 1);
            }
        }
    }
    let promised = acknowledged(publishers);
    for ((producer, n), event) in &promised {
        match found.get(&event.payload) {
            Some(1) => {}
            Some(times) => {
                return Err(format!("event {n} of {producer} stands {times} times in the source logs"));
            }
            None => return Err(format!("event {n} of {producer} was acknowledged and is in no source log")),
        }
    }
    Ok(promised.len() as u64)
}
