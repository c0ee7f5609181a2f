//! The strongest check: every actor's committed output and state equal what one process makes of
//! the same input, merged as the commits recorded it, with the random numbers that they recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_protocol::actor::fold::ActorMemory;
use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::effect::{ActorSpec, Invoked};
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{EventId, LogId, Position, Seq};
use dunlin_protocol::log::record::{Body, Change, Commit, Emitted, Observed};
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::mesh::assignment::{Assigned, Layout, Line};
use dunlin_protocol::pipeline::plan::Role;
use dunlin_protocol::wire::message::Filter;

use crate::functions::{Hosted, Luck};
use crate::world::World;

/// What one log hands to the next: keyed state, and how far everything was read.
#[derive(Debug, Default)]
struct Carried {
    state: BTreeMap<Bytes, Bytes>,
    frontier: BTreeMap<LogId, Position>,
    memory: ActorMemory,
}

/// Returns how many actors were compared.
pub fn check(world: &World) -> Result<u64, String> {
    let assignment = super::streams::assignment(world)?;
    let mut compared = 0;
    for layout in assignment.pipelines().values() {
        for line in layout.lines.iter().filter(|line| line.unit.role != Role::Source) {
            let node = world.index_of(line.node).expect("placed on a node of this world");
            let mut carried = Carried::default();
            let mut follows = None;
            let path = super::streams::path(world, line)?;
            for actor in &path {
                carried = check_actor(world, node, layout, actor, follows, carried)
                    .map_err(|why| format!("actor {} ({:?} on n{node}): {why}", actor.id, actor.unit.id))?;
                follows = Some(actor.id);
                compared += 1;
            }
            if line.wanted.is_some() && line.wanted != follows {
                return Err(format!(
                    "{:?} on n{node} stands at {follows:?}, wanted is {:?}",
                    line.unit, line.wanted
                ));
            }
        }
    }
    Ok(compared)
}

/// Every log that the actor may read, with its node and by which inputs.
fn inputs_of(
    world: &World,
    layout: &Layout,
    actor: &Assigned,
) -> BTreeMap<LogId, (usize, BTreeMap<u16, u16>)> {
    let logs = layout.lines.iter().flat_map(|line| &line.logs);
    let read = logs.filter_map(|log| {
        let node = world.index_of(log.node).expect("placed on a node of this world");
        Some((log.id, (node, layout.inputs(actor, log)?)))
    });
    read.collect()
}

/// The successor takes over from exactly where the log before it was closed, before it does anything.
fn check_inherited(world: &World, node: usize, log: LogId, follows: Option<LogId>) -> Result<(), String> {
    let bodies = world.history.bodies((node, log));
    let first = bodies.iter().find(|(_, body)| !matches!(body, Body::EpochStart(_))).map(|(_, body)| body);
    match (follows, first) {
        (None, Some(Body::Inherit(_))) => Err("it is the first of its line and inherits".into()),
        (Some(before), Some(Body::Inherit(inherit))) => {
            let last = world.history.bodies((node, before)).pop();
            match last {
                Some((record, Body::Close { .. }))
                    if inherit.from == before && inherit.closed_at == record.position() =>
                {
                    Ok(())
                }
                other => {
                    Err(format!("it inherits from {inherit:?}, and the log before it ends with {other:?}"))
                }
            }
        }
        (Some(_), Some(_)) => Err("it follows another log and inherits nothing".into()),
        (None | Some(_), None) | (None, Some(_)) => Ok(()),
    }
}

fn check_actor(
    world: &World,
    node: usize,
    layout: &Layout,
    actor: &Assigned,
    follows: Option<LogId>,
    carried: Carried,
) -> Result<Carried, String> {
    let log = actor.id;
    check_inherited(world, node, log, follows)?;
    let inputs = inputs_of(world, layout, actor);
    // What a source took on a node may come to be known in another order than it was opened.
    let begun = |line: &&Line| line.unit.role != Role::Source;
    let (actors, sources): (Vec<&Line>, Vec<&Line>) = layout.lines.iter().partition(begun);
    let first = actors.iter().filter_map(|line| line.first());
    let first: BTreeSet<LogId> =
        first.chain(sources.iter().flat_map(|line| &line.logs)).map(|log| log.id).collect();
    let slots = actor.share.slots();
    let spec = Arc::new(ActorSpec { name: actor.name.clone(), chain: actor.unit.chain.clone(), follows });
    let mut oracle = Hosted::new(&spec)?;
    oracle.shelf.committed = carried.state.clone();
    let mut upstream: BTreeMap<LogId, Vec<Kept>> = BTreeMap::new();
    for (input, (at, _)) in &inputs {
        let records = world.history.records((*at, *input));
        upstream.insert(*input, records.iter().filter_map(Kept::of).collect());
    }
    let Carried { mut state, mut frontier, mut memory } = carried;
    for (record, body) in world.history.bodies((node, log)) {
        let Body::Commit(commit) = body else { continue };
        let mut batch = Vec::new();
        let mut from_lost = false;
        let mut before_it = None;
        for advance in &commit.frontier {
            let last = before_it.replace(advance.log);
            if advance.to == Position::START {
                // A log that ended is followed by this one.
                frontier.remove(&last.ok_or("it follows a log from its start behind none")?);
                frontier.entry(advance.log).or_insert(Position::START);
                continue;
            }
            let (_, outputs) = inputs
                .get(&advance.log)
                .ok_or_else(|| format!("it reads log {}, which is no input", advance.log))?;
            let filter = Filter { outputs: outputs.keys().copied().collect(), slots };
            let records = upstream.get(&advance.log).map_or(&[][..], Vec::as_slice);
            if !frontier.contains_key(&advance.log) && !first.contains(&advance.log) {
                return Err(format!(
                    "commit {} begins log {}, and the log before it was not read to its end",
                    record.seq.0, advance.log
                ));
            }
            let before = frontier.insert(advance.log, advance.to).unwrap_or_default();
            let (from, stood) = stands(records, before);
            // What it read was lost since: nobody can say what should have come of it.
            from_lost |= !stood || !stands(records, advance.to).1;
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
                        step: None,
                        placed: Placed { id, event: event.event },
                    });
                }
            }
        }
        let batch = seen(batch, &commit, &memory);
        let luck = commit.observed.iter().map(|observed| match observed {
            Observed::Random(value) => *value,
            Observed::Now(at) => at.0,
        });
        let outcome = match batch.is_empty() || from_lost {
            true => Default::default(),
            false => {
                let luck = Luck::Recorded(luck.collect());
                oracle.invoke(&batch, commit.at, luck).map_err(|error| error.reason)?
            }
        };
        memory.apply(&commit);
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
    Ok(Carried { state, frontier, memory })
}

/// The events that took effect in a commit, in the order in which the function saw them: first those
/// that were parked and succeeded now, then the fresh ones. What parks, or dies at the head, is not
/// among them; what a fused step refused is, since the head's work on it stands.
fn seen(fresh: Vec<Invoked>, commit: &Commit, memory: &ActorMemory) -> Vec<Invoked> {
    let retried = memory.parked.iter().filter(|parked| commit.unparked.contains(&parked.parked_id()));
    let retried = retried.map(|parked| Invoked {
        step: parked.replayed.as_ref().and_then(|replayed| replayed.step),
        input: parked.input,
        placed: Placed { id: parked.id, event: parked.event.clone() },
    });
    let parks = |event: &Invoked| commit.parked.iter().any(|parked| parked.id == event.placed.id);
    let dies = |event: &Invoked| {
        commit.dead.iter().any(|letter| letter.cause == event.placed.id && letter.step.is_none())
    };
    retried.chain(fresh).filter(|event| !parks(event) && !dies(event)).collect()
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
