//! Changed files, deployed while events flow.

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::Digest;
use dunlin_protocol::pipeline::manifest::{Module, Operator};
use dunlin_protocol::rpc::{FaultKind, Request, Response};
use dunlin_protocol::time::Span;

use super::{Broken, Run, manifest_of, name};
use crate::scenario::changed;

impl Run {
    /// A changed file, now and then two in quick succession.
    pub(super) fn redeploy_somewhere(&mut self) -> Result<(), Broken> {
        let node = self.world.chance.between(0, self.last_node() as u64) as usize;
        self.redeploy(node)?;
        let soon = if self.world.chance.one_in(3) { 60 } else { 2_500 };
        self.next_trial = self.world.now.after(Span(self.world.chance.between(1, soon)));
        Ok(())
    }

    /// Both sides of a cut deploy; sometimes one of them twice, so that the winner changes when they
    /// meet, and again when the other side goes on.
    pub(super) fn deploy_rivals(&mut self) -> Result<(), Broken> {
        self.next_trial = self.world.now.after(Span(self.world.chance.between(200, 2_000)));
        let apart = self.world.chance.between(0, self.last_node() as u64) as usize;
        let others: Vec<usize> = (0..self.scenario.nodes).filter(|node| *node != apart).collect();
        let until = self.world.now.after(Span(self.world.chance.between(50, 1_500)));
        for other in &others {
            self.world.network.cut(apart, *other, until);
            self.world.unlink(apart, *other);
        }
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
        let mut manifest = manifest_of(&text).map_err(Broken::Promise)?;
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
