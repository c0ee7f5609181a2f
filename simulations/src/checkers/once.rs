//! P2: what comes out of a stage holds every event exactly once: each (producer, n) that entered, no
//! id twice. Events of a lost tail may count again.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::rpc::TailEvent;

use super::tail::{Numbered, number_of};

pub fn check(
    events: &[TailEvent],
    entered: &BTreeSet<Numbered>,
    again: &BTreeSet<Numbered>,
) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    let mut seen: BTreeMap<Numbered, u64> = BTreeMap::new();
    for event in events {
        if !ids.insert(event.placed.id) {
            return Err(format!("event {} was seen twice", event.placed.id));
        }
        let number =
            number_of(&event.placed.event).ok_or("an event came out without its producer's number")?;
        *seen.entry(number).or_default() += 1;
    }
    for (number, times) in &seen {
        let (producer, n) = number;
        if *times != 1 && !again.contains(number) {
            return Err(format!("event {n} of {producer} came out {times} times"));
        }
    }
    for number in entered {
        if !seen.contains_key(number) {
            return Err(format!(
                "event {} of {} stands in a source log and never came out",
                number.1, number.0
            ));
        }
    }
    Ok(())
}
