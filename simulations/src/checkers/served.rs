//! P1 and damage: what a writer serves is what was written and told to stand, record by record, and
//! nothing of a log that it was told is damaged.

use std::collections::BTreeMap;

use dunlin_protocol::id::{LogId, NodeId, TopicId};
use dunlin_protocol::log::record::Record;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::wire::message::{Broadcast, EdgeId, Message, Slice};

use crate::history::History;

/// Which log each edge between nodes reads.
#[derive(Debug, Default)]
pub struct Served {
    edges: BTreeMap<(usize, NodeId, EdgeId), LogId>,
    /// What each writer offers by gossip.
    topics: BTreeMap<(usize, TopicId), LogId>,
}

impl Served {
    /// A message reached the writer.
    pub fn hear(&mut self, writer: usize, reader: NodeId, message: &Message) {
        if let Message::Subscribe { edge, log, .. } = message {
            self.edges.insert((writer, reader, *edge), *log);
        }
    }

    /// The writer sends a message.
    pub fn say(
        &mut self,
        writer: usize,
        reader: NodeId,
        message: &Message,
        history: &History,
    ) -> Result<(), String> {
        if let Message::CatalogRecords { node, records } = message {
            let past = history.past((writer, LogName::Catalog(*node).id()));
            let told = |record: &Record| {
                past.is_some_and(|past| {
                    record.seq <= past.told() && past.position(record.seq) == Some(record.position())
                })
            };
            return match records.iter().find(|record| !told(record)) {
                None => Ok(()),
                Some(record) => Err(format!(
                    "n{writer} gives away record {} of {node:?}'s catalog log, which does not stand on its disk",
                    record.seq.0
                )),
            };
        }
        if let Message::Offer { log, outputs } = message {
            self.topics.insert((writer, TopicId::of(log, outputs)), *log);
        }
        let Message::Batch { edge, slices, .. } = message else { return Ok(()) };
        let Some(log) = self.edges.get(&(writer, reader, *edge)) else { return Ok(()) };
        check(writer, *log, slices, history)
    }

    /// The writer broadcasts a batch.
    pub fn broadcast(
        &self,
        writer: usize,
        topic: TopicId,
        broadcast: &Broadcast,
        history: &History,
    ) -> Result<(), String> {
        match self.topics.get(&(writer, topic)) {
            Some(log) => check(writer, *log, &broadcast.slices, history),
            None => Err(format!("n{writer} broadcasts in topic {topic}, which it has offered to nobody")),
        }
    }

    pub fn forget(&mut self, writer: usize) {
        self.edges.retain(|(of, _, _), _| *of != writer);
        self.topics.retain(|(of, _), _| *of != writer);
    }
}

fn check(writer: usize, log: LogId, slices: &[Slice], history: &History) -> Result<(), String> {
    let Some(past) = history.past((writer, log)) else {
        return Err(format!("n{writer} serves log {log}, which it does not have"));
    };
    if past.damaged {
        return Err(format!("n{writer} serves log {log}, which is damaged"));
    }
    for slice in slices {
        let at = slice.position;
        if at.seq > past.told() {
            return Err(format!("n{writer} serves record {} of log {log} before it stands", at.seq.0));
        }
        if past.position(at.seq) != Some(at) {
            return Err(format!(
                "n{writer} serves a record {} of log {log} that was never written",
                at.seq.0
            ));
        }
    }
    Ok(())
}
