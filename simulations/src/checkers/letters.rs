//! Dead letters end: an event that its stage always refuses dies there, once, after its last attempt
//! and with a reason; nothing else dies without a cause.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::limits::ATTEMPTS_MAX;
use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::catalog::LogName;

use super::tail::{Numbered, number_of};
use crate::functions::is_poison;
use crate::world::World;

/// By stage, the events that died there.
pub type Dead = BTreeMap<String, BTreeSet<Numbered>>;

/// `traps`: guests trapped at random, so that any event may have died. `again`: events of lost tails,
/// which may have died twice, or died where nobody knows of it any more.
pub fn check(world: &World, traps: bool, again: &BTreeSet<Numbered>) -> Result<Dead, String> {
    let mut dead = Dead::new();
    let mut poison = BTreeSet::new();
    for (place, past) in world.history.logs() {
        let LogName::Actor { pipeline, .. } = &past.name else { continue };
        if pipeline.as_str() != "sim" {
            continue;
        }
        for (_, body) in world.history.bodies(*place) {
            match body {
                Body::Append(append) => {
                    let events = append.events.iter().filter(|event| is_poison(&event.payload));
                    poison.extend(events.filter_map(number_of));
                }
                Body::Commit(commit) => {
                    for letter in commit.dead {
                        let Some(number) = number_of(&letter.event) else { continue };
                        let said = format!("event {} of {} died in {}", number.1, number.0, letter.stage);
                        if letter.attempts != ATTEMPTS_MAX || letter.reason.is_empty() {
                            return Err(format!(
                                "{said} after {} attempts, because '{}'",
                                letter.attempts, letter.reason
                            ));
                        }
                        if !traps && !is_poison(&letter.event.payload) {
                            return Err(format!("{said} without a cause"));
                        }
                        let first = dead.entry(letter.stage).or_default().insert(number.clone());
                        if !first && !again.contains(&number) {
                            return Err(format!("{said} twice"));
                        }
                    }
                }
                Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_) | Body::Catalog { .. } => {}
            }
        }
    }
    let died = dead.get("count");
    let alive = poison
        .iter()
        .find(|number| !again.contains(*number) && died.is_none_or(|died| !died.contains(*number)));
    match alive {
        None => Ok(dead),
        Some(number) => {
            Err(format!("event {} of {} is refused by its stage and never died", number.1, number.0))
        }
    }
}
