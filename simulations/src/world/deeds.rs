//! What a run may do to the world.

use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::peer::Peer;
use dunlin_protocol::rpc::Request;
use dunlin_protocol::time::Span;

use super::{Clock, Happening, Kept, Node, World};

impl World {
    pub fn start(&mut self, node: usize, after: Span) {
        self.after(after, Happening::Start { node });
    }

    /// The process is gone, and in some climates the machine with it.
    pub fn crash(&mut self, node: usize) {
        self.end(node, self.climate.power_loss);
    }

    /// The process is gone; what it had written is still there.
    pub fn kill(&mut self, node: usize) {
        self.end(node, false);
    }

    fn end(&mut self, node: usize, power: bool) {
        if self.nodes[node].peer.take().is_none() {
            return;
        }
        self.trace.line(self.now, format!("n{node} {}", if power { "loses power" } else { "crashes" }));
        let victim = &mut self.nodes[node];
        victim.life += 1;
        victim.lost_power = power;
        victim.dies_after = None;
        victim.paused_until = self.now;
        victim.waiting.clear();
        victim.timers.clear();
        victim.topics.clear();
        let left =
            std::mem::take(&mut victim.hosted).into_iter().map(|(log, hosted)| (log, hosted.left_behind()));
        victim.stores.extend(left);
        if power {
            // A store is never synced: it may be gone, or stand further than its log.
            victim.stores.retain(|_, _| !self.chance.one_in(2));
        }
        victim.disk.crash(power, &mut self.chance);
        self.watch.forget(node);
        for other in self.network.links_of(node) {
            self.unlink(node, other);
        }
    }

    /// A copy of the folder of a node that is down, as a start would find it.
    pub fn keep(&self, node: usize) -> Kept {
        let Node { disk, stores, .. } = &self.nodes[node];
        let mut disk = disk.clone();
        disk.recover();
        Kept { disk, stores: stores.clone() }
    }

    /// Another folder takes the place of that of a node that is down; gives the one that was there.
    pub fn replace(&mut self, node: usize, with: Kept) -> Kept {
        let Node { disk, stores, .. } = &mut self.nodes[node];
        let Kept { disk: new, stores: others } = with;
        Kept { disk: std::mem::replace(disk, new), stores: std::mem::replace(stores, others) }
    }

    /// The process dies after so many more effects, in the middle of whatever it does then.
    pub fn crash_after(&mut self, node: usize, effects: u64) {
        self.nodes[node].dies_after = Some(effects);
    }

    /// The process stands still, and goes on as if nothing had been.
    pub fn pause(&mut self, node: usize, span: Span) {
        self.trace.line(self.now, format!("n{node} stands still for {} ms", span.0));
        let until = self.now.after(span).max(self.nodes[node].paused_until);
        self.nodes[node].paused_until = until;
        self.later(until, Happening::Wake { node });
    }

    /// Nobody is paused or about to die any more.
    pub fn calm_down(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = self.now;
            self.nodes[node].dies_after = None;
            self.wake(node);
        }
    }

    pub(super) fn boot(&mut self, node: usize) {
        if self.is_up(node) {
            return;
        }
        let (off, per_mille) = self.climate.clock(&mut self.chance);
        let seed = self.chance.draw();
        let born = &mut self.nodes[node];
        born.clock = Clock::new(self.now, off, per_mille);
        let wall = born.clock.at(self.now);
        self.trace.line(self.now, format!("n{node} starts, its clock shows {}", wall.0));
        born.peer = Some(Peer::new(born.config(node, wall.0, seed)));
        for input in born.disk.recover() {
            if let Input::Recovered(found) = &input {
                let power = self.nodes[node].lost_power;
                if let Err(broken) = self.history.recovered(node, power, found) {
                    self.watch.broken.get_or_insert(broken);
                }
            }
            self.handle(node, input);
        }
        self.handle(node, Input::Start);
    }

    pub fn unlink(&mut self, a: usize, b: usize) {
        if !self.network.drop_link(a, b) {
            return;
        }
        self.trace.line(self.now, format!("link n{a}-n{b} drops"));
        for (here, there) in [(a, b), (b, a)] {
            let gone = Input::Disconnected { node: self.nodes[there].id };
            self.input_soon(here, gone);
        }
    }

    /// Two nodes get to know of each other.
    pub fn meet(&mut self, a: usize, b: usize) {
        let span = Span(self.chance.between(1, 30));
        self.after(span, Happening::Link { a, b });
    }

    pub fn request(&mut self, node: usize, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.input_soon(node, Input::Request { id, request });
        id
    }
}
