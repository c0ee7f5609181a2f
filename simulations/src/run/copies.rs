//! An older copy of a node's data folder is put back: a backup, a machine's snapshot. When somebody has
//! read more of its logs than the copy holds, the node has to say so before it takes anything, and none of
//! its logs is written or served. Then the newest folder is put back, and everything goes on as if nothing
//! had been; or the node is given up.

use std::collections::BTreeMap;

use dunlin_protocol::id::{LogId, Seq};
use dunlin_protocol::pipeline::plan::Role;
use dunlin_protocol::time::{Span, Time};

use super::{Broken, Run};
use crate::checkers::streams;
use crate::history::Past;
use crate::world::Kept;

/// What a node must have said by then, once its older folder is back.
const TOLD_WITHIN: Span = Span(20_000);
/// What readers say of a node that runs on an older copy.
const EXCUSED: [&str; 2] = ["folder_outdated", "edge_stopped"];

/// Where the trial stands.
#[derive(Debug, Default)]
pub(super) enum Copies {
    #[default]
    None,
    /// A copy of this node's folder.
    Taken { node: usize, copy: Kept },
    /// The node runs on it.
    PutBack(PutBack),
}

#[derive(Debug)]
pub(super) struct PutBack {
    node: usize,
    newest: Kept,
    past: BTreeMap<LogId, Past>,
    /// How often it had said that its folder is an older copy, and what its publishers had been told.
    said: usize,
    acknowledged: u64,
    until: Time,
}

impl Run {
    pub(super) fn go_on_with_copies(&mut self) -> Result<(), Broken> {
        let pause = self.world.chance.between(500, 3_000);
        match std::mem::take(&mut self.copies) {
            Copies::None => {
                let node = self.last_node();
                self.world.crash(node);
                self.copies = Copies::Taken { node, copy: self.world.keep(node) };
            }
            Copies::Taken { node, copy } => self.put_back(node, copy),
            Copies::PutBack(put_back) => {
                let said = self.said_outdated(put_back.node) > put_back.said;
                if !said && self.world.now < put_back.until {
                    self.copies = Copies::PutBack(put_back);
                    self.next_trial = self.world.now.after(Span(100));
                    return Ok(());
                }
                self.end_copy(put_back, said)?;
            }
        }
        self.next_trial = self.world.now.after(Span(pause));
        Ok(())
    }

    /// The faults end: so does this one.
    pub(super) fn end_copies(&mut self) -> Result<(), Broken> {
        while let Copies::PutBack(_) = &self.copies {
            self.work(Span(100));
            self.restart_the_dead();
            self.go_on_with_copies()?;
        }
        Ok(())
    }

    /// The copy takes the folder's place, if somebody can know that it is older.
    fn put_back(&mut self, node: usize, copy: Kept) {
        self.world.crash(node);
        if !self.somebody_read_more(node, &copy) {
            return;
        }
        let now = self.world.now;
        self.world.trace.line(now, format!("n{node}'s folder is put back from an older copy"));
        self.world.excused.extend(EXCUSED);
        let ends = copy.disk.folders().map(|(log, folder)| (*log, folder.head().seq)).collect();
        let past = self.world.history.roll_back(node, &ends);
        let newest = self.world.replace(node, copy);
        let (said, acknowledged) = (self.said_outdated(node), self.acknowledged_at(node));
        let until = now.after(TOLD_WITHIN);
        self.copies = Copies::PutBack(PutBack { node, newest, past, said, acknowledged, until });
    }

    fn end_copy(&mut self, put_back: PutBack, said: bool) -> Result<(), Broken> {
        let PutBack { node, newest, past, acknowledged, .. } = put_back;
        if !said {
            return Err(Broken::Promise(format!(
                "n{node} runs on an older copy of its folder, others have read more, and it does not say so"
            )));
        }
        if self.acknowledged_at(node) > acknowledged {
            return Err(Broken::Promise(format!(
                "n{node} acknowledged events in an older copy of its folder"
            )));
        }
        self.world.crash(node);
        self.world.trace.line(self.world.now, format!("n{node}'s newest folder is put back"));
        self.world.replace(node, newest);
        self.world.history.put_back(node, past);
        Ok(())
    }

    fn said_outdated(&self, node: usize) -> usize {
        let said = |(of, what, _): &&(usize, &'static str, String)| *of == node && *what == "folder_outdated";
        self.world.reports.iter().filter(said).count()
    }

    fn acknowledged_at(&self, node: usize) -> u64 {
        let here = self.publishers.iter().filter(|publisher| publisher.node == node);
        here.map(|publisher| publisher.acknowledged).sum()
    }

    /// A reader on another node has committed what follows on the copy's end.
    fn somebody_read_more(&self, node: usize, copy: &Kept) -> bool {
        // Of nodes that are all down nobody knows who reads what.
        let Ok(assignment) = streams::assignment(&self.world) else { return false };
        let ends: BTreeMap<LogId, Seq> =
            copy.disk.folders().map(|(log, folder)| (*log, folder.head().seq)).collect();
        let lines = assignment
            .pipelines()
            .values()
            .flat_map(|layout| layout.lines.iter().map(move |line| (layout, line)));
        lines.filter(|(_, line)| line.unit.role != Role::Source).any(|(layout, line)| {
            let Some(reader) = line.wanted().filter(|reader| reader.node != self.world.nodes[node].id) else {
                return false;
            };
            let frontier = streams::frontier(&self.world, layout, reader);
            frontier.iter().any(|(log, at)| {
                let theirs = self.world.history.past((node, *log)).is_some();
                theirs && at.seq > ends.get(log).copied().unwrap_or_default()
            })
        })
    }
}
