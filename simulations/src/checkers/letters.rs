//! Dead letters end: an event that its stage always refuses dies there, once, after its last attempt
//! and with a reason; nothing else dies without a cause. A letter that is replayed lives again, and may
//! die again.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::id::{LetterId, LogId};
use dunlin_protocol::limits::ATTEMPTS_MAX;
use dunlin_protocol::log::record::{Body, Commit, DeadLetter};
use dunlin_protocol::mesh::catalog::LogName;

use super::streams;
use super::tail::{Numbered, number_of};
use crate::functions::is_poison;
use crate::world::World;

/// By stage, the events that are dead there.
pub type Dead = BTreeMap<String, BTreeSet<Numbered>>;

/// What became of all letters.
#[derive(Debug, Default)]
pub struct Letters {
    /// Letters that stand or were dropped.
    pub dead: Dead,
    /// Events of which a letter was replayed.
    pub replayed: BTreeSet<Numbered>,
    /// Letters that were replayed or dropped.
    pub moved: u64,
}

/// `traps`: guests trapped at random, so that any event may have died. `again`: events of lost tails,
/// which may have died twice, or died where nobody knows of it any more.
/// `removed`: a node that was given up; whoever took over decided anew on what was dead there.
pub fn check(
    world: &World,
    traps: bool,
    again: &BTreeSet<Numbered>,
    removed: Option<usize>,
) -> Result<Letters, String> {
    let mut poison = BTreeSet::new();
    let mut written: BTreeMap<(String, Numbered), BTreeSet<LetterId>> = BTreeMap::new();
    let mut replayed = BTreeSet::new();
    let mut moved = BTreeSet::new();
    let standing = standing(world, removed)?;
    // What the dead node had refused, whoever took over may not find any more: it begins with what is kept.
    let mut taken = BTreeSet::new();
    for ((node, _), past) in world.history.logs() {
        let LogName::Actor { pipeline, .. } = &past.name else { continue };
        if pipeline.as_str() != "sim" {
            continue;
        }
        for kept in &past.kept {
            match &*kept.body {
                Body::Append(append) => {
                    let events = append.events.iter().filter(|event| is_poison(&event.payload));
                    poison.extend(events.filter_map(number_of));
                }
                Body::Commit(commit) => {
                    replayed.extend(replays(commit));
                    for id in &commit.undead {
                        if !moved.insert(*id) {
                            return Err(format!("letter {id} was moved twice"));
                        }
                    }
                    if Some(*node) == removed {
                        let parked = commit.parked.iter().map(|parked| &parked.event);
                        let dead = commit.dead.iter().map(|letter| &letter.event);
                        taken.extend(parked.chain(dead).filter_map(number_of));
                    }
                    for letter in &commit.dead {
                        let Some(number) = number_of(&letter.event) else { continue };
                        check_cause(letter, &number, traps)?;
                        if Some(*node) == removed {
                            continue;
                        }
                        written.entry((letter.stage.clone(), number)).or_default().insert(letter.id);
                    }
                }
                Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_) | Body::Catalog { .. } => {}
            }
        }
    }
    let mut letters = Letters { moved: moved.len() as u64, ..Letters::default() };
    for ((stage, number), ids) in written {
        let stand = ids.difference(&replayed).count();
        let counts = |id: &&LetterId| standing.as_ref().is_none_or(|logs| logs.contains(&id.actor));
        if ids.difference(&replayed).filter(counts).count() > 1 && !again.contains(&number) {
            return Err(format!("event {} of {} died in {stage} twice", number.1, number.0));
        }
        if stand < ids.len() {
            letters.replayed.insert(number.clone());
        }
        if stand > 0 {
            letters.dead.entry(stage).or_default().insert(number);
        }
    }
    let died = letters.dead.get("count");
    let excused = |number: &Numbered| again.contains(number) || taken.contains(number);
    let alive =
        poison.iter().find(|number| !excused(number) && died.is_none_or(|died| !died.contains(*number)));
    match alive {
        None => Ok(letters),
        Some(number) => {
            Err(format!("event {} of {} is refused by its stage and is no dead letter", number.1, number.0))
        }
    }
}

/// Where a node was given up: the logs of lines that are at work. Both sides of a cut may have begun the dead
/// node's shares anew; one of them lost, and the other decides anew on what was dead there.
fn standing(world: &World, removed: Option<usize>) -> Result<Option<BTreeSet<LogId>>, String> {
    if removed.is_none() {
        return Ok(None);
    }
    let assignment = streams::assignment(world)?;
    let mut logs = BTreeSet::new();
    let lines = assignment.pipelines().values().flat_map(|layout| &layout.lines);
    for line in lines.filter(|line| line.wanted.is_some()) {
        logs.extend(streams::path(world, line)?.into_iter().map(|log| log.id));
    }
    Ok(Some(logs))
}

/// The letters that a commit lets go of and parks.
fn replays(commit: &Commit) -> impl Iterator<Item = LetterId> + '_ {
    let parked = commit.parked.iter().filter_map(|parked| Some(parked.replayed.as_ref()?.letter));
    parked.filter(|letter| commit.undead.contains(letter))
}

fn check_cause(letter: &DeadLetter, number: &Numbered, traps: bool) -> Result<(), String> {
    let said = format!("event {} of {} died in {}", number.1, number.0, letter.stage);
    if letter.attempts != ATTEMPTS_MAX || letter.reason.is_empty() {
        return Err(format!("{said} after {} attempts, because '{}'", letter.attempts, letter.reason));
    }
    match traps || is_poison(&letter.event.payload) {
        true => Ok(()),
        false => Err(format!("{said} without a cause")),
    }
}
