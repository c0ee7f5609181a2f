//! Damaged disks. A node is down when its bytes change; it has to say so when it comes back, to leave
//! the files as they are, and to serve nothing of the log. Later the files are restored from a copy,
//! as the node's sentence asks, and everything goes on. What a node holds of a catalog log the others hold,
//! too: where they have all of it, nobody restores anything, and the node has to mend it by itself.

use dunlin_protocol::id::LogId;
use dunlin_protocol::time::{Span, Time};

use super::{Broken, Run};
use crate::disk::{DAMAGES, Wound};

/// What a damaged log is reported as.
const TOLD: [&str; 2] = ["log_damaged", "catalog_damaged"];
/// What readers of a damaged log may report.
const EXCUSED: [&str; 5] =
    ["log_damaged", "catalog_damaged", "edge_stopped", "log_unreadable", "function_unusable"];

#[derive(Debug)]
pub struct Wounded {
    node: usize,
    wound: Wound,
    restore_at: Time,
}

impl Run {
    /// Changes bytes of one log on this node, one wound at a time for a node.
    pub(super) fn wound(&mut self, node: usize) {
        if self.wounded.iter().any(|wounded| wounded.node == node) || self.asleep.contains(&node) {
            return;
        }
        self.world.crash(node);
        let chance = &mut self.world.chance;
        let disk = &mut self.world.nodes[node].disk;
        let logs: Vec<LogId> = disk.folders().map(|(log, _)| *log).collect();
        if logs.is_empty() {
            return;
        }
        let (log, damage) = (*chance.pick(&logs), *chance.pick(&DAMAGES));
        let Some(wound) = disk.damage(log, damage, chance) else { return };
        self.world.trace.line(self.world.now, format!("n{node}'s log {log}: {damage:?}"));
        self.world.excused.extend(EXCUSED);
        let restore_at = self.world.now.after(Span(self.world.chance.between(2_500, 8_000)));
        self.wounded.push(Wounded { node, wound, restore_at });
    }

    pub(super) fn tend_wounds(&mut self) -> Result<(), Broken> {
        let now = self.world.now;
        while let Some(due) = self.wounded.iter().position(|wounded| now >= wounded.restore_at) {
            let wounded = self.wounded.remove(due);
            self.restore(wounded)?;
        }
        Ok(())
    }

    /// What is still damaged is told, then restored.
    pub(super) fn restore_all(&mut self) -> Result<(), Broken> {
        if self.wounded.is_empty() {
            return Ok(());
        }
        let victim = self.victim();
        for node in (0..self.scenario.nodes).filter(|node| Some(*node) != victim) {
            self.world.start(node, Span(0));
        }
        self.pass(Span(1_000));
        for wounded in std::mem::take(&mut self.wounded) {
            if !self.is_held_elsewhere(&wounded) {
                self.restore(wounded)?;
            }
        }
        Ok(())
    }

    /// Another node that will be up holds the whole of the log.
    fn is_held_elsewhere(&self, wounded: &Wounded) -> bool {
        let (log, held) = (wounded.wound.log, wounded.wound.held());
        let victim = self.victim();
        (0..self.scenario.nodes).filter(|node| Some(*node) != victim && *node != wounded.node).any(|node| {
            let folder = self.world.nodes[node].disk.folder(log);
            folder.is_some_and(|folder| folder.damage().is_none() && folder.head().seq >= held.seq)
        })
    }

    /// Nothing on the disks of nodes that are up is damaged any more.
    pub(super) fn is_whole(&self) -> Result<(), String> {
        for node in (0..self.scenario.nodes).filter(|node| self.world.is_up(*node)) {
            let mut folders = self.world.nodes[node].disk.folders();
            if let Some((log, _)) = folders.find(|(_, folder)| folder.damage().is_some()) {
                return Err(format!("n{node}'s log {log} is still damaged, and others hold it"));
            }
        }
        Ok(())
    }

    fn restore(&mut self, wounded: Wounded) -> Result<(), Broken> {
        let Wounded { node, wound, restore_at } = wounded;
        let log = wound.log;
        if !self.world.is_up(node) {
            // It had no time to say anything.
            self.wounded.push(Wounded { node, wound, restore_at: restore_at.after(Span(500)) });
            return Ok(());
        }
        let Some(folder) = self.world.nodes[node].disk.folder(log) else {
            // Its pipeline was removed meanwhile.
            return Ok(());
        };
        let named = log.to_string();
        let told = self
            .world
            .reports
            .iter()
            .any(|(of, what, detail)| *of == node && TOLD.contains(what) && detail.contains(&named));
        if folder.damage().is_none() {
            return match wound.must_be_told && !told {
                true => Err(Broken::Promise(format!(
                    "n{node} did not notice the damage to log {log}: {:?}",
                    wound.damage
                ))),
                false => Ok(()),
            };
        }
        if !told {
            return Err(Broken::Promise(format!("n{node} says nothing of the damage to log {log}")));
        }
        self.world.crash(node);
        self.world.trace.line(self.world.now, format!("n{node}'s log {log} is restored from a copy"));
        self.world.nodes[node].disk.restore(wound);
        self.world.history.restored((node, log));
        Ok(())
    }
}
