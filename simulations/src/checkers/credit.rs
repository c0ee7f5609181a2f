//! P6: a reader is sent nothing beyond its credit plus at most one batch: a batch of records leaves only
//! while what was sent before it is less than what the reader had granted.

use std::collections::BTreeMap;

use dunlin_protocol::id::NodeId;
use dunlin_protocol::wire::message::{EdgeId, Message, Slice};

/// What the readers of all writers granted and were sent, between nodes.
#[derive(Debug, Default)]
pub struct Credit {
    accounts: BTreeMap<(usize, NodeId, EdgeId), Account>,
    /// How often a batch used up what its reader had granted: more had to wait.
    pub used_up: u64,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    granted: u64,
    sent: u64,
}

impl Credit {
    /// A message reached the writer.
    pub fn hear(&mut self, writer: usize, reader: NodeId, message: &Message) {
        match message {
            Message::Subscribe { edge, credit, .. } => {
                self.accounts.insert((writer, reader, *edge), Account { granted: *credit, sent: 0 });
            }
            Message::Credit { edge, total, .. } => {
                if let Some(account) = self.accounts.get_mut(&(writer, reader, *edge)) {
                    account.granted = account.granted.max(*total);
                }
            }
            _ => {}
        }
    }

    /// The writer sends a message.
    pub fn say(&mut self, writer: usize, reader: NodeId, message: &Message) -> Result<(), String> {
        let Message::Batch { edge, after, slices, .. } = message else { return Ok(()) };
        // Only how far the log goes, or that it is closed: who has no credit hears that.
        if slices.iter().all(|slice| slice.events.is_empty() && slice.position == *after) {
            return Ok(());
        }
        let Some(account) = self.accounts.get_mut(&(writer, reader, *edge)) else { return Ok(()) };
        let Account { granted, sent } = *account;
        account.sent += slices.iter().map(Slice::weight).sum::<u64>();
        self.used_up += u64::from(account.sent >= granted);
        match sent < granted {
            true => Ok(()),
            false => Err(format!(
                "n{writer} sent {reader:?} a batch on edge {} where {sent} of {granted} granted bytes were sent",
                edge.0
            )),
        }
    }

    /// The writer's process is gone.
    pub fn forget(&mut self, writer: usize) {
        self.accounts.retain(|(of, _, _), _| *of != writer);
    }
}
