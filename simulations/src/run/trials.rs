//! What a scenario tries besides crashes and cuts: a node that comes late or is away, a full disk, a
//! reader that stands still.

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::Digest;
use dunlin_protocol::limits::EDGE_CREDIT_BYTES;
use dunlin_protocol::pipeline::manifest::{Module, Operator};
use dunlin_protocol::rpc::{FaultKind, Publish, Request, Response};
use dunlin_protocol::time::Span;

use super::{Broken, Run, name, parsed};
use crate::checkers;
use crate::scenario::{Trial, changed};

/// How long a node that was away may take to learn what it missed.
const CATCH_UP: Span = Span(15_000);

impl Run {
    /// The node that is late or away.
    fn last_node(&self) -> usize {
        self.scenario.nodes - 1
    }

    pub(super) fn try_before_deploy(&mut self) {
        if matches!(self.scenario.trial, Trial::Absent | Trial::RedeployAbsent) {
            self.world.crash(self.last_node());
        }
    }

    pub(super) fn try_at_first(&mut self) {
        let now = self.world.now;
        match self.scenario.trial {
            Trial::None => {}
            Trial::LateJoin => {
                let after = Span(self.world.chance.between(1_000, 5_000));
                self.world.start(self.last_node(), after);
            }
            Trial::Absent => {
                let after = Span(self.world.chance.between(1, 3_000));
                self.world.start(self.last_node(), after);
            }
            Trial::RedeployAbsent => {
                let after = Span(self.world.chance.between(1, 6_000));
                self.world.start(self.last_node(), after);
                self.next_trial = now.after(Span(self.world.chance.between(1, 1_500)));
            }
            Trial::Redeploy | Trial::Rivals | Trial::RedeployFull => {
                self.next_trial = now.after(Span(self.world.chance.between(1, 1_500)));
            }
            Trial::FullDisk => self.next_trial = now.after(Span(self.world.chance.between(1, 1_000))),
            Trial::Stalled => {
                self.world.stalled = Some("last");
                self.next_trial = now.after(Span(1_000));
            }
        }
    }

    pub(super) fn try_meanwhile(&mut self) -> Result<(), Broken> {
        if self.world.now < self.next_trial {
            return Ok(());
        }
        match self.scenario.trial {
            Trial::None | Trial::LateJoin | Trial::Absent => {}
            Trial::Redeploy | Trial::RedeployAbsent => {
                if self.scenario.trial == Trial::RedeployAbsent && self.world.chance.one_in(4) {
                    self.world.crash(self.last_node());
                    let after = Span(self.world.chance.between(1, 3_000));
                    self.world.start(self.last_node(), after);
                }
                self.redeploy_somewhere()?;
            }
            Trial::Rivals => self.deploy_rivals()?,
            Trial::RedeployFull => {
                let victim = self.world.chance.between(0, self.last_node() as u64) as usize;
                let disk = &mut self.world.nodes[victim].disk;
                disk.full = !disk.full;
                self.world.was_full = true;
                self.redeploy_somewhere()?;
            }
            Trial::FullDisk => {
                let victim = self.world.chance.between(0, self.last_node() as u64) as usize;
                let disk = &mut self.world.nodes[victim].disk;
                disk.full = !disk.full;
                self.world.was_full = true;
                self.next_trial = self.world.now.after(Span(self.world.chance.between(1, 1_500)));
            }
            Trial::Stalled => {
                checkers::bounded::check(&self.world).map_err(Broken::Promise)?;
                self.next_trial = self.world.now.after(Span(1_000));
            }
        }
        Ok(())
    }

    pub(super) fn try_at_end(&mut self) -> Result<(), Broken> {
        match self.scenario.trial {
            Trial::None | Trial::LateJoin | Trial::Redeploy | Trial::RedeployAbsent => Ok(()),
            Trial::Rivals | Trial::RedeployFull => Ok(()),
            Trial::Absent => self.remove_while_away(),
            Trial::FullDisk => match self.publishers.iter().map(|publisher| publisher.unkept).sum() {
                0u64 => Err(Broken::Promise("disks were full and no publisher was told".into())),
                _ => Ok(()),
            },
            // Without a small retention the credit is what fills up, and nobody else waits.
            Trial::Stalled if self.scenario.retention.is_empty() => match self.world.credit.fullest {
                0..EDGE_CREDIT_BYTES => {
                    Err(Broken::Promise("a reader stood still and its credit never ran out".into()))
                }
                EDGE_CREDIT_BYTES.. => Ok(()),
            },
            Trial::Stalled => match self.publishers.iter().map(|publisher| publisher.busy).sum() {
                0u64 => Err(Broken::Promise("a reader stood still and no publisher was told to wait".into())),
                _ => Ok(()),
            },
        }
    }

    /// The pipeline goes while a node is away; that node serves nothing of it when it is back.
    fn remove_while_away(&mut self) -> Result<(), Broken> {
        let away = self.last_node();
        self.world.crash(away);
        match self.ask(0, &Request::Remove { pipeline: name("sim") }, "the removal")? {
            Response::Removed { .. } => {}
            other => return Err(Broken::Promise(format!("the removal was answered {other:?}"))),
        }
        self.pass(Span(2_000));
        self.world.start(away, Span(10));
        self.pass(Span(20));
        let publish = Publish {
            pipeline: name("sim"),
            source: name("in"),
            producer: None,
            log: None,
            events: Vec::new(),
        };
        let id = self.world.request(away, Request::Publish(publish));
        if let Some(Response::Published { .. }) = self.await_answer(id, CATCH_UP)?.pop() {
            return Err(Broken::Promise(
                "a node that was away during the removal took events for the removed pipeline".into(),
            ));
        }
        self.pass(CATCH_UP);
        checkers::removed::check(&self.world).map_err(Broken::Promise)
    }

    /// A changed file, now and then two in quick succession.
    fn redeploy_somewhere(&mut self) -> Result<(), Broken> {
        let node = self.world.chance.between(0, self.last_node() as u64) as usize;
        self.redeploy(node)?;
        let soon = if self.world.chance.one_in(3) { 60 } else { 2_500 };
        self.next_trial = self.world.now.after(Span(self.world.chance.between(1, soon)));
        Ok(())
    }

    /// Both sides of a cut deploy; sometimes one of them twice, so that the winner changes when they
    /// meet, and again when the other side goes on.
    fn deploy_rivals(&mut self) -> Result<(), Broken> {
        self.next_trial = self.world.now.after(Span(self.world.chance.between(200, 2_000)));
        let apart = self.world.chance.between(0, self.last_node() as u64) as usize;
        let others: Vec<usize> = (0..self.scenario.nodes).filter(|node| *node != apart).collect();
        for other in &others {
            self.world.network.cut(apart, *other);
            self.world.unlink(apart, *other);
        }
        self.heal_at = self.world.now.after(Span(self.world.chance.between(50, 1_500)));
        let sides = [apart, others[self.world.chance.between(0, others.len() as u64 - 1) as usize]];
        for side in sides {
            for _ in 0..self.world.chance.between(0, 2) {
                self.redeploy(side)?;
                let pause = Span(self.world.chance.between(0, 150));
                self.work(pause);
            }
        }
        Ok(())
    }

    /// Deploys the pipeline with some of its places changed.
    fn redeploy(&mut self, node: usize) -> Result<(), Broken> {
        self.redeploys += 1;
        let number = self.redeploys;
        let changes = self.world.chance.draw() & self.world.chance.draw();
        let text = changed(&self.scenario.manifest_text(), number, changes & 0xff);
        let mut manifest = parsed(&text).map_err(Broken::Promise)?;
        let digest = match self.world.chance.one_in(3) {
            true => Digest([number as u8; 32]),
            false => Digest([0; 32]),
        };
        if let Some(Operator::Wasm(spec)) =
            manifest.stages.get_mut(&name("count")).map(|stage| &mut stage.operator)
        {
            spec.module = Module::Digest(digest);
        }
        for digest in [Digest([0; 32]), digest] {
            self.world.input_soon(node, Input::ModuleHeld { digest });
        }
        let id = self.world.request(node, Request::Deploy { manifest });
        self.redeploying.insert(id);
        Ok(())
    }

    /// A redeploy may come too early, or lose; it is never wrong.
    pub(super) fn on_redeployed(&mut self, response: &Response) {
        match response {
            Response::Deployed { .. } => {}
            Response::Failed(fault) => match fault.kind {
                FaultKind::Busy { .. }
                | FaultKind::Conflict
                | FaultKind::Unavailable
                | FaultKind::Storage => {
                    self.world.trace.line(self.world.now, format!("a redeploy is refused: {}", fault.detail));
                }
                FaultKind::Invalid | FaultKind::Unknown | FaultKind::NotYet => {
                    self.world.errors.push(format!("a redeploy was refused: {}", fault.detail));
                }
            },
            other => self.world.errors.push(format!("a redeploy was answered {other:?}")),
        }
    }
}
