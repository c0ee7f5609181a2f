//! P1 in `memory` and `page`: a log may lose its tail, never something in its middle. What stands in
//! the source logs must come out; only what stood in a lost tail may have come out before.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::event::Event;
use dunlin_protocol::log::record::Body;
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::pipeline::plan::Role;

use super::streams;
use crate::world::World;

/// An event of a publisher: (producer, n).
pub type Numbered = (String, u64);

pub fn number_of(event: &Event) -> Option<Numbered> {
    let payload: serde_json::Value = serde_json::from_slice(&event.payload).ok()?;
    Some((payload["producer"].as_str()?.to_string(), payload["n"].as_u64()?))
}

/// The events that stand in the source logs, each once and each producer's without a gap.
pub fn check(world: &World) -> Result<BTreeSet<Numbered>, String> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut standing = BTreeSet::new();
    let assignment = streams::assignment(world)?;
    let lines = assignment.pipelines().values().flat_map(|layout| &layout.lines);
    for line in lines.filter(|line| line.unit.role == Role::Source) {
        let node = world.index_of(line.node).expect("placed on a node of this world");
        for log in streams::path(world, line)? {
            for kept in world.history.kept((node, log.id)) {
                let Body::Append(append) = &*kept.body else { continue };
                for (producer, n) in append.events.iter().filter_map(number_of) {
                    let before = last.insert(producer.clone(), n).unwrap_or(0);
                    if n != before + 1 {
                        return Err(format!(
                            "event {n} of {producer} follows on event {before} in its source log"
                        ));
                    }
                    standing.insert((producer, n));
                }
            }
        }
    }
    Ok(standing)
}

/// The events that stood in lost records, or whose letters or next tries did.
pub fn lost<'a>(records: impl Iterator<Item = &'a Kept>) -> BTreeSet<Numbered> {
    let events = records.flat_map(|kept| match &*kept.body {
        Body::Append(append) => append.events.iter().collect(),
        Body::Commit(commit) => {
            let emitted = commit.emitted.iter().map(|emitted| &emitted.event);
            let parked = commit.parked.iter().map(|parked| &parked.event);
            emitted.chain(parked).chain(commit.dead.iter().map(|letter| &letter.event)).collect()
        }
        Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_) | Body::Catalog { .. } => Vec::new(),
    });
    events.filter_map(number_of).collect()
}

/// The events that need not have come out: a reader that lost its tail went on behind what retention had
/// let go of, so what stood in the tail alone may be gone for good.
pub fn gone(world: &World, lost: &BTreeSet<Numbered>) -> BTreeSet<Numbered> {
    match world.reports.iter().any(|(_, what, _)| *what == "tail_gone") {
        true => lost.clone(),
        false => BTreeSet::new(),
    }
}
