//! The strongest check: every actor's committed output and state equal what one process makes of
//! the same input, merged as the commits recorded it, with the random numbers that they recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_protocol::actor::fold::{ActorMemory, LogFold, Memory};
use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::effect::{ActorSpec, Invoked};
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{EventId, LogId, Position, Seq};
use dunlin_protocol::log::record::{Body, Change, Commit, Emitted, Inherit, Observed, Parked};
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::mesh::assignment::{Assigned, Layout, Line};
use dunlin_protocol::pipeline::manifest::Durability;
use dunlin_protocol::pipeline::plan::{Role, SlotRange};
use dunlin_protocol::wire::message::Filter;

use crate::functions::{Hosted, Luck};
use crate::history::History;
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
                if line.gone && reads_untold(world, node, layout, actor) {
                    break;
                }
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

/// Whether it read a log of its own node that this node, given up since, never told the others of: they cannot
/// work out what it was.
fn reads_untold(world: &World, node: usize, layout: &Layout, actor: &Assigned) -> bool {
    let mut commits = world.history.kept((node, actor.id)).iter().filter_map(|kept| match &*kept.body {
        Body::Commit(commit) => Some(commit),
        _ => None,
    });
    let told = |log: &LogId| layout.lines.iter().any(|line| line.log(log).is_some());
    let untold = |log: LogId| !told(&log) && world.history.past((node, log)).is_some();
    commits.any(|commit| commit.frontier.iter().any(|advance| untold(advance.log)))
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
    let mut bodies = world.history.kept((node, log)).iter().map(|kept| &*kept.body);
    let first = bodies.find(|body| !matches!(body, Body::EpochStart(_)));
    match (follows, first) {
        (None, Some(Body::Inherit(_))) => Err("it is the first of its line and inherits".into()),
        (Some(before), Some(Body::Inherit(inherit))) => {
            let last = world.history.kept((node, before)).last();
            match last.map(|last| (last.position, &*last.body)) {
                Some((at, Body::Close { .. })) if inherit.from == before && inherit.closed_at == at => Ok(()),
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
    let spec = Arc::new(ActorSpec { name: actor.name.clone(), chain: actor.unit.chain.clone(), follows });
    let mut oracle = Hosted::new(&spec)?;
    oracle.shelf.committed = carried.state.clone();
    let reading = Reading::new(world, layout, actor);
    let Carried { mut state, mut frontier, mut memory } = carried;
    for kept in world.history.kept((node, log)) {
        let commit = match &*kept.body {
            Body::Commit(commit) => commit,
            Body::Inherit(inherit) => {
                memory = handed_over(&memory, inherit)?;
                continue;
            }
            Body::EpochStart(_) | Body::Append(_) | Body::Close { .. } | Body::Catalog { .. } => continue,
        };
        let said = format!("commit {}", kept.position.seq.0);
        let taken = reading.taken(commit, &frontier).map_err(|why| format!("{said} {why}"))?;
        let Taken { batch, frontier: now_at, from_lost } = taken;
        frontier = now_at;
        let batch = seen(batch, commit, &memory);
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
        memory.apply(commit);
        match from_lost {
            true => {
                oracle.discard();
                oracle.shelf.apply(&commit.state);
            }
            false => oracle.apply(kept.position),
        }
        for Change { key, value } in &commit.state {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        let mut touched = commit.state.iter().chain(&outcome.changes).map(|change| &change.key);
        if let Some(key) = touched.find(|key| state.get(*key) != oracle.shelf.committed.get(*key)) {
            return Err(format!(
                "{said} leaves another value of {key:?} than one process, from the same {} events",
                batch.len()
            ));
        }
        let (ours, theirs): (&[Emitted], &[Emitted]) = (&commit.emitted, &outcome.emitted);
        if ours != theirs && !from_lost {
            return Err(format!(
                "{said} emitted {} events, one process emits {} from the same {} events",
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

/// What the log takes over: all that waited and all letters, in the same order.
fn handed_over(before: &ActorMemory, inherit: &Inherit) -> Result<ActorMemory, String> {
    let LogFold { memory: Memory::Actor(after), .. } = LogFold::read(&inherit.fold)? else {
        return Err("it takes over what a source remembered".into());
    };
    let waits = |memory: &ActorMemory| memory.parked.iter().map(Parked::parked_id).collect::<Vec<_>>();
    let tries = |memory: &ActorMemory| memory.parked.iter().map(|parked| parked.attempts).collect::<Vec<_>>();
    if waits(before) != waits(&after) || tries(before) != tries(&after) {
        return Err(format!(
            "{} events waited in the log before it, it takes over {}",
            before.parked.len(),
            after.parked.len()
        ));
    }
    if !before.dead.keys().eq(after.dead.keys()) {
        return Err(format!(
            "the log before it kept {} dead letters, it takes over {}",
            before.dead.len(),
            after.dead.len()
        ));
    }
    if after.watermark != before.watermark {
        return Err(format!("it begins with watermark {}, not {}", after.watermark.0, before.watermark.0));
    }
    Ok(after)
}

/// What an actor may read, and where each log may be begun.
struct Reading<'a> {
    slots: SlotRange,
    inputs: BTreeMap<LogId, (usize, BTreeMap<u16, u16>)>,
    upstream: BTreeMap<LogId, &'a [Kept]>,
    /// Logs that no other comes before.
    first: BTreeSet<LogId>,
    /// A log that lost its tail may go on behind what those that it reads have let go of.
    may_lose: bool,
    /// Logs of nodes that were given up.
    gone: BTreeSet<LogId>,
    history: &'a History,
}

/// What a commit took in.
struct Taken {
    batch: Vec<Invoked>,
    frontier: BTreeMap<LogId, Position>,
    /// Some of it was lost since: nobody can say what should have come of it.
    from_lost: bool,
}

impl Reading<'_> {
    fn new<'a>(world: &'a World, layout: &Layout, actor: &Assigned) -> Reading<'a> {
        let inputs = inputs_of(world, layout, actor);
        // What a source took on a node may come to be known in another order than it was opened.
        let begun = |line: &&Line| line.unit.role != Role::Source;
        let (actors, sources): (Vec<&Line>, Vec<&Line>) = layout.lines.iter().partition(begun);
        let first = actors.iter().filter_map(|line| line.first());
        let first = first.chain(sources.iter().flat_map(|line| &line.logs)).map(|log| log.id).collect();
        let upstream =
            inputs.iter().map(|(input, (at, _))| (*input, world.history.kept((*at, *input)))).collect();
        let may_lose = actor.manifest.durability != Durability::Disk;
        let gone = layout.lines.iter().filter(|line| line.gone).flat_map(|line| &line.logs);
        let gone = gone.map(|log| log.id).collect();
        Reading {
            slots: actor.share.slots(),
            inputs,
            upstream,
            first,
            may_lose,
            gone,
            history: &world.history,
        }
    }

    /// What this commit took in. Who reads a log from its start, or lost its own tail, begins with what is
    /// kept of it then: which of the log's beginnings that was shows in the number of events.
    fn taken(&self, commit: &Commit, frontier: &BTreeMap<LogId, Position>) -> Result<Taken, String> {
        let skips = |log: &LogId| match frontier.get(log) {
            Some(at) => *at == Position::START || self.may_lose,
            None => true,
        };
        let mut starts: Vec<BTreeMap<LogId, Seq>> = vec![BTreeMap::new()];
        for log in commit.frontier.iter().map(|advance| advance.log).collect::<BTreeSet<_>>() {
            let Some((node, _)) = self.inputs.get(&log).filter(|_| skips(&log)) else { continue };
            let begins = self.history.past((*node, log)).map_or(&[][..], |past| &past.begins);
            let with = |starts: &BTreeMap<LogId, Seq>, begins: &Seq| {
                let mut starts = starts.clone();
                starts.insert(log, *begins);
                starts
            };
            let more: Vec<_> =
                starts.iter().flat_map(|so_far| begins.iter().map(|begins| with(so_far, begins))).collect();
            starts.extend(more);
        }
        let mut whole = None;
        for starts in &starts {
            let taken = self.taken_from(commit, frontier.clone(), starts)?;
            if taken.from_lost || taken.batch.len() as u64 == commit.events_in {
                return Ok(taken);
            }
            whole.get_or_insert(taken.batch.len());
        }
        Err(format!("took in {} events, what it read holds {}", commit.events_in, whole.unwrap_or(0)))
    }

    fn taken_from(
        &self,
        commit: &Commit,
        mut frontier: BTreeMap<LogId, Position>,
        starts: &BTreeMap<LogId, Seq>,
    ) -> Result<Taken, String> {
        let mut batch = Vec::new();
        let mut from_lost = false;
        let mut before_it = None;
        for advance in &commit.frontier {
            let last = before_it.replace(advance.log);
            if advance.to == Position::START {
                // A log that ended is followed by this one.
                frontier.remove(&last.ok_or("follows a log from its start behind none")?);
                frontier.entry(advance.log).or_insert(Position::START);
                continue;
            }
            let (_, outputs) = self
                .inputs
                .get(&advance.log)
                .ok_or_else(|| format!("reads log {}, which is no input", advance.log))?;
            let filter = Filter { outputs: outputs.keys().copied().collect(), slots: self.slots };
            let records = self.upstream.get(&advance.log).copied().unwrap_or_default();
            if !frontier.contains_key(&advance.log) && !self.first.contains(&advance.log) {
                return Err(format!(
                    "begins log {}, and the log before it was not read to its end",
                    advance.log
                ));
            }
            let before = frontier.insert(advance.log, advance.to).unwrap_or_default();
            let (from, stood) = stands(records, before);
            from_lost |= !stood || !stands(records, advance.to).1;
            // Of a node that was given up: it holds no watermark back, and nothing more came of it.
            let stays = self.gone.contains(&advance.log) && advance.to.seq == before.seq;
            if advance.to.seq <= from && !from_lost && !stays {
                return Err(format!(
                    "moves the frontier of {} from {} to {}",
                    advance.log, from.0, advance.to.seq.0
                ));
            }
            let begins = starts.get(&advance.log).copied().unwrap_or_default();
            let behind = from.0.max(begins.0.saturating_sub(1)) as usize;
            let end = (advance.to.seq.0 as usize).min(records.len());
            for kept in records.get(behind..end).unwrap_or_default() {
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
        Ok(Taken { batch, frontier, from_lost })
    }
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
    let there = |seq: Seq| records.get((seq.0 as usize).checked_sub(1)?);
    if at.seq == Seq(0) || there(at.seq).is_some_and(|kept| kept.position == at) {
        return (at.seq, true);
    }
    let next = records.iter().find(|kept| kept.position.epoch > at.epoch).map(|kept| kept.position.seq);
    (next.map_or(at.seq, |first| Seq(first.0 - 1).min(at.seq)), false)
}
