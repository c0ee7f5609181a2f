//! The strongest check: every actor's committed output and state equal what one process makes of
//! the same input, merged as the commits recorded it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::effect::{ActorSpec, Invoked};
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{EventId, LogId, Position, Seq};
use dunlin_protocol::log::record::{Body, Change, Emitted};
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::pipeline::plan::Role;
use dunlin_protocol::wire::message::Filter;

use crate::functions::Hosted;
use crate::world::World;

/// Returns how many actors were compared.
pub fn check(world: &World) -> Result<u64, String> {
    let assignment = super::streams::assignment(world)?;
    let mut compared = 0;
    for pipeline in assignment.pipelines().keys() {
        for actor in assignment.all_logs(pipeline) {
            if actor.unit.id.role == Role::Source {
                continue;
            }
            let mut inputs: BTreeMap<LogId, (usize, BTreeMap<u16, u16>)> = BTreeMap::new();
            for upstream in assignment.upstreams(actor) {
                let node = world.index_of(upstream.node).expect("placed on a node of this world");
                inputs
                    .entry(upstream.log)
                    .or_insert((node, BTreeMap::new()))
                    .1
                    .insert(upstream.output, upstream.input);
            }
            let spec = Arc::new(ActorSpec { name: actor.name.clone(), chain: actor.unit.chain.clone() });
            let node = world.index_of(actor.node).expect("placed on a node of this world");
            check_actor(world, node, actor.id, &spec, &inputs, actor.share.slots())
                .map_err(|why| format!("actor {} ({:?} on n{node}): {why}", actor.id, actor.unit.id))?;
            compared += 1;
        }
    }
    Ok(compared)
}

fn check_actor(
    world: &World,
    node: usize,
    log: LogId,
    spec: &Arc<ActorSpec>,
    inputs: &BTreeMap<LogId, (usize, BTreeMap<u16, u16>)>,
    slots: dunlin_protocol::pipeline::plan::SlotRange,
) -> Result<(), String> {
    let mut oracle = Hosted::new(spec, &[], None)?;
    let mut upstream: BTreeMap<LogId, Vec<Kept>> = BTreeMap::new();
    for (input, (at, _)) in inputs {
        let records =
            world.nodes[*at].disk.logs.get(input).map(|log| log.records.as_slice()).unwrap_or_default();
        upstream.insert(*input, records.iter().filter_map(Kept::of).collect());
    }
    let mut frontier: BTreeMap<LogId, Position> = BTreeMap::new();
    let mut state: BTreeMap<bytes::Bytes, bytes::Bytes> = BTreeMap::new();
    for (record, body) in world.bodies(node, log) {
        let Body::Commit(commit) = body else { continue };
        let mut batch = Vec::new();
        let mut from_lost = false;
        for advance in &commit.frontier {
            let (_, outputs) = inputs
                .get(&advance.log)
                .ok_or_else(|| format!("it reads log {}, which is no input", advance.log))?;
            let filter = Filter { outputs: outputs.keys().copied().collect(), slots };
            let records = upstream.get(&advance.log).map_or(&[][..], Vec::as_slice);
            let before = frontier.insert(advance.log, advance.to).unwrap_or_default();
            let (from, _) = stands(records, before);
            // What it read was lost since: nobody can say what should have come of it.
            from_lost |= !stands(records, advance.to).1;
            if advance.to.seq <= from && !from_lost {
                return Err(format!(
                    "commit {} moves the frontier of {} from {} to {}",
                    record.seq.0, advance.log, from.0, advance.to.seq.0
                ));
            }
            for kept in
                records.iter().filter(|kept| kept.position.seq > from && kept.position.seq <= advance.to.seq)
            {
                for event in slice_of(kept, &filter).events {
                    let id = EventId {
                        log: advance.log,
                        epoch: kept.position.epoch,
                        seq: kept.position.seq,
                        index: event.index,
                    };
                    batch.push(Invoked {
                        input: outputs[&event.output],
                        placed: Placed { id, event: event.event },
                    });
                }
            }
        }
        let outcome = match batch.is_empty() {
            true => Default::default(),
            false => oracle.invoke(&batch, commit.at).map_err(|error| error.reason)?,
        };
        match from_lost {
            true => {
                oracle.discard();
                oracle.shelf.apply(&commit.state);
            }
            false => oracle.apply(record.position()),
        }
        for Change { key, value } in &commit.state {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        let (ours, theirs): (&[Emitted], &[Emitted]) = (&commit.emitted, &outcome.emitted);
        if ours != theirs && !from_lost {
            return Err(format!(
                "commit {} emitted {} events, one process emits {} from the same {} events",
                record.seq.0,
                ours.len(),
                theirs.len(),
                batch.len()
            ));
        }
    }
    if state != oracle.shelf.committed {
        return Err("its committed state differs from one process's".into());
    }
    Ok(())
}

/// How far of what an actor read up to `at` the log still holds, and whether that is all of it: a lost
/// tail ends where the next epoch begins.
fn stands(records: &[Kept], at: Position) -> (Seq, bool) {
    if at.seq == Seq(0) || records.iter().any(|kept| kept.position == at) {
        return (at.seq, true);
    }
    let next = records.iter().find(|kept| kept.position.epoch > at.epoch).map(|kept| kept.position.seq);
    (next.map_or(at.seq, |first| Seq(first.0 - 1).min(at.seq)), false)
}
