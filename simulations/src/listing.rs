//! Every log as the observer saw it, a line per record: what a failing seed's trace does not tell.

use std::fmt::Write;

use dunlin_protocol::actor::fold::{LogFold, Memory};
use dunlin_protocol::event::Event;
use dunlin_protocol::log::record::{Body, Commit, DeadLetter, Inherit, Parked};
use dunlin_protocol::mesh::catalog::{CatalogEntry, LogName, Revision};

use crate::checkers::tail::number_of;
use crate::history::History;

/// Bytes of a line.
const LINE_BYTES: usize = 1_200;

/// Node by node: actors' logs, the sources', and every copy of a catalog log.
pub fn of(history: &History) -> Vec<String> {
    let mut lines = Vec::new();
    for ((node, log), past) in history.logs() {
        lines.push(match &past.name {
            LogName::Actor { pipeline, born, unit, share } => format!(
                "n{node} {log:?} is {pipeline}/{:?} {}, {share:?}, born {:?}.{}",
                unit.role, unit.name, born.node, born.seq.0
            ),
            LogName::Catalog(of) => format!("n{node} {log:?} is the catalog log of {of:?}"),
        });
        for kept in &past.kept {
            let mut line = format!("  {}.{} {}", kept.position.epoch.0, kept.position.seq.0, say(&kept.body));
            line.truncate(line.floor_char_boundary(LINE_BYTES));
            lines.push(line);
        }
    }
    lines
}

fn say(body: &Body) -> String {
    match body {
        Body::EpochStart(_) => "begins an epoch".into(),
        Body::Append(append) => {
            let idle = if append.idle { ", idle" } else { "" };
            format!("takes [{}], watermark {}{idle}", numbers(&append.events), append.watermark.0)
        }
        Body::Commit(commit) => say_commit(commit),
        Body::Close { successor } => format!("closes into {successor:?}"),
        Body::Inherit(inherit) => say_inherit(inherit),
        Body::Catalog { entry, .. } => say_fact(entry),
    }
}

fn say_fact(entry: &CatalogEntry) -> String {
    match entry {
        CatalogEntry::Node(_) => "a node's facts".into(),
        CatalogEntry::Revision(revision) => {
            let Revision { pipeline, previous, height, content } = revision;
            let what = content.as_ref().map_or_else(
                || "nothing".into(),
                |deployed| format!("{:?}, births {:?}", deployed.digest, deployed.births),
            );
            format!("revision {height} of {pipeline} behind {previous:?}: {what}")
        }
        CatalogEntry::SourceOpened { pipeline, source, born } => {
            format!("opens {pipeline}/{source}, born {:?}.{}", born.node, born.seq.0)
        }
        CatalogEntry::TokensRotated { members, .. } => {
            format!("rotates tokens, {} members stay", members.len())
        }
        CatalogEntry::Admitted { node } => format!("lets {node:?} in"),
        CatalogEntry::NodeRemoved { node, .. } => format!("gives {node:?} up"),
        CatalogEntry::Reborn { pipeline, log, born } => {
            format!("bears {pipeline}'s {log:?} again, born {:?}.{}", born.node, born.seq.0)
        }
    }
}

fn say_commit(commit: &Commit) -> String {
    let mut line = format!("in {}, watermark {}", commit.events_in, commit.watermark.0);
    for advance in &commit.frontier {
        let _ = write!(line, ", reads {:?} to {}.{}", advance.log, advance.to.epoch.0, advance.to.seq.0);
    }
    let emitted = commit.emitted.iter().map(|emitted| {
        let number = number_of(&emitted.event).map_or_else(|| "?".into(), |(of, n)| format!("{of} {n}"));
        format!("{}: {number}", emitted.output)
    });
    let _ = write!(line, ", gives [{}]", emitted.collect::<Vec<String>>().join(", "));
    say_waiting(&mut line, "parks", commit.parked.iter());
    let unparked = commit.unparked.iter().map(|id| format!("{}", id.event));
    say_list(&mut line, "unparks", unparked);
    say_dead(&mut line, commit.dead.iter());
    say_list(&mut line, "lets go of letters", commit.undead.iter().map(ToString::to_string));
    line
}

fn say_inherit(inherit: &Inherit) -> String {
    let mut line = format!("inherits from {:?} at {}", inherit.from, inherit.closed_at.seq.0);
    match LogFold::read(&inherit.fold).map(|fold| fold.memory) {
        Ok(Memory::Actor(memory)) => {
            for advance in memory.frontier.values() {
                let _ = write!(
                    line,
                    ", stands in {:?} at {}.{}",
                    advance.log, advance.to.epoch.0, advance.to.seq.0
                );
            }
            let ended = memory.ended.iter().map(|(ended, by)| format!("{ended:?} > {by:?}"));
            say_list(&mut line, "has passed", ended);
            say_waiting(&mut line, "keeps", memory.parked.iter());
            say_dead(&mut line, memory.dead.values());
        }
        Ok(Memory::Source(memory)) => {
            let producers =
                memory.producers.iter().map(|(name, producer)| format!("{name} {}", producer.last));
            say_list(&mut line, "knows", producers);
        }
        Err(error) => line.push_str(&error),
    }
    line
}

fn say_waiting<'a>(line: &mut String, what: &str, parked: impl Iterator<Item = &'a Parked>) {
    let said = parked.map(|parked| {
        let Parked { id, input, attempts, reason, .. } = parked;
        format!("{} ({id}) of input {input}, {attempts} tries, {reason}", named(&parked.event))
    });
    say_list(line, what, said);
}

fn say_dead<'a>(line: &mut String, dead: impl Iterator<Item = &'a DeadLetter>) {
    let said = dead.map(|letter| {
        let DeadLetter { id, stage, attempts, reason, .. } = letter;
        format!("{} ({id}) in {stage}, {attempts} tries, {reason}", named(&letter.event))
    });
    say_list(line, "dead", said);
}

fn say_list(line: &mut String, what: &str, said: impl Iterator<Item = String>) {
    let said: Vec<String> = said.collect();
    if !said.is_empty() {
        let _ = write!(line, ", {what} [{}]", said.join("; "));
    }
}

fn numbers(events: &[Event]) -> String {
    events.iter().map(named).collect::<Vec<String>>().join(", ")
}

fn named(event: &Event) -> String {
    number_of(event).map_or_else(|| "?".into(), |(producer, n)| format!("{producer} {n}"))
}
