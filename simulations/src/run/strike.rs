//! Faults, each when its time has come.

use dunlin_protocol::rpc::{Request, TailFrom};
use dunlin_protocol::time::{Span, Time};

use super::clients::tail_of;
use super::{Broken, Run, manifest_of, name};
use crate::faults::{FAULTS, Fault};
use crate::network::Pair;
use crate::partition::SHAPES;

/// When each kind strikes next, and what of it is still to come.
#[derive(Debug)]
pub struct Strikes {
    due: [Time; FAULTS.len()],
    /// When a node that is down starts again.
    restart: Vec<Option<Time>>,
    /// When a full disk has space again.
    space: Vec<Option<Time>>,
    /// When the outside is back.
    outside: Time,
    flap: Vec<Pair>,
    flap_at: Time,
    flaps: u64,
}

impl Strikes {
    pub fn new(nodes: usize) -> Strikes {
        Strikes {
            due: [Time::MAX; FAULTS.len()],
            restart: vec![None; nodes],
            space: vec![None; nodes],
            outside: Time::MAX,
            flap: Vec::new(),
            flap_at: Time::MAX,
            flaps: 0,
        }
    }
}

impl Run {
    pub(super) fn begin_strikes(&mut self) {
        FAULTS.iter().for_each(|fault| self.plan(*fault));
    }

    /// When this kind strikes next.
    fn plan(&mut self, fault: Fault) {
        let every = self.scenario.faults.every_ms(fault);
        self.strikes.due[fault as usize] = match every {
            0 => Time::MAX,
            every => self.world.now.after(Span(self.world.chance.between(1, every * 2))),
        };
    }

    fn node(&mut self) -> usize {
        self.world.chance.between(0, self.scenario.nodes as u64 - 1) as usize
    }

    fn soon(&mut self, low: u64, high: u64) -> Time {
        self.world.now.after(Span(self.world.chance.between(low, high)))
    }

    pub(super) fn strike(&mut self) -> Result<(), Broken> {
        for fault in FAULTS {
            if self.world.now >= self.strikes.due[fault as usize] {
                self.plan(fault);
                self.hit(fault);
            }
        }
        self.go_on_flapping();
        self.restart_the_dead();
        self.end_what_passes();
        self.tend_wounds()
    }

    fn hit(&mut self, fault: Fault) {
        let node = self.node();
        match fault {
            Fault::Crash => {
                let all = self.world.chance.one_in(6);
                (0..self.scenario.nodes).filter(|victim| all || *victim == node).for_each(|victim| {
                    self.world.crash(victim);
                });
            }
            Fault::Kill => self.world.kill(node),
            Fault::CrashInside => {
                let effects = self.world.chance.between(0, 40);
                self.world.crash_after(node, effects);
            }
            Fault::Pause => {
                let span = Span(self.world.chance.between(10, 6_000));
                self.world.pause(node, span);
            }
            Fault::Cut => {
                // Some outlast the suspicion of the members.
                let longest = if self.world.chance.one_in(4) { 20_000 } else { 3_000 };
                let until = self.soon(50, longest);
                self.cut(until);
            }
            Fault::Flap => {
                self.strikes.flap =
                    self.world.chance.pick(&SHAPES).pairs(self.scenario.nodes, &mut self.world.chance);
                self.strikes.flaps = self.world.chance.between(2, 8);
                self.strikes.flap_at = self.world.now;
            }
            Fault::Silence => {
                let (to, until) = (self.node(), self.soon(50, 5_000));
                self.world.network.silence(node, to, until);
                self.world.trace.line(self.world.now, format!("n{node} is not heard by n{to}"));
            }
            Fault::Clog => {
                let (to, until) = (self.node(), self.soon(50, 3_000));
                self.world.network.clog(node, to, until);
                self.world.trace.line(self.world.now, format!("from n{node} to n{to} is clogged"));
            }
            Fault::FullDisk => {
                self.world.excused.insert("disk_full");
                self.world.nodes[node].disk.full = true;
                self.strikes.space[node] = Some(self.soon(10, 2_500));
                self.world.trace.line(self.world.now, format!("n{node}'s disk is full"));
            }
            Fault::Damage => self.wound(node),
            Fault::Stall => {
                self.world.stalled = Some(*self.world.chance.pick(&["out", "last", "count"]));
                self.strikes.outside = self.soon(100, 4_000);
            }
            Fault::Tap => {
                let stream = *self.world.chance.pick(&["in", "some", "count", "twice", "last"]);
                let from = if self.world.chance.one_in(2) { TailFrom::Start } else { TailFrom::Now };
                self.taps.begin(&tail_of(stream, from, true), node, &mut self.world);
            }
            Fault::Neighbour => self.change_neighbour(node),
            Fault::Letters => self.move_letters(node),
        }
    }

    fn cut(&mut self, until: Time) {
        let shape = *self.world.chance.pick(&SHAPES);
        let pairs = shape.pairs(self.scenario.nodes, &mut self.world.chance);
        self.world.trace.line(self.world.now, format!("cut {shape:?}: {pairs:?}"));
        self.cut_pairs(&pairs, until);
    }

    fn cut_pairs(&mut self, pairs: &[Pair], until: Time) {
        for (a, b) in pairs {
            self.world.network.cut(*a, *b, until);
            self.world.unlink(*a, *b);
        }
    }

    fn go_on_flapping(&mut self) {
        if self.strikes.flaps == 0 || self.world.now < self.strikes.flap_at {
            return;
        }
        self.strikes.flaps -= 1;
        let until = self.soon(10, 300);
        let pairs = self.strikes.flap.clone();
        self.cut_pairs(&pairs, until);
        self.strikes.flap_at = until.after(Span(self.world.chance.between(10, 400)));
    }

    /// Whoever is down, for whatever reason, is started again after a while.
    pub(super) fn restart_the_dead(&mut self) {
        for node in 0..self.scenario.nodes {
            if self.world.is_up(node) || self.asleep.contains(&node) {
                self.strikes.restart[node] = None;
                continue;
            }
            match self.strikes.restart[node] {
                None => self.strikes.restart[node] = Some(self.soon(1, 1_500)),
                Some(at) if self.world.now >= at => self.world.start(node, Span(0)),
                Some(_) => {}
            }
        }
    }

    fn end_what_passes(&mut self) {
        for node in 0..self.scenario.nodes {
            if self.strikes.space[node].is_some_and(|at| self.world.now >= at) {
                self.strikes.space[node] = None;
                self.world.nodes[node].disk.full = false;
            }
        }
        if self.world.now >= self.strikes.outside {
            self.strikes.outside = Time::MAX;
            self.world.stalled = None;
        }
    }

    /// Everything heals; what is slow stays slow.
    pub(super) fn end_strikes(&mut self) {
        self.world.network.heal();
        self.world.climate.clear_up();
        self.world.stalled = None;
        for node in &mut self.world.nodes {
            node.disk.full = false;
        }
        self.world.calm_down();
        self.taps.calm_down(self.world.now);
        self.world.trace.line(self.world.now, "peace".into());
    }

    /// Another pipeline comes or goes, asked of any node; whoever asked does not wait for the answer.
    fn change_neighbour(&mut self, node: usize) {
        let request = match self.world.chance.one_in(2) {
            true => Request::Remove { pipeline: name("side") },
            false => {
                let shares = self.world.chance.between(1, 3);
                let text = NEIGHBOUR.replace("SHARES", &shares.to_string());
                Request::Deploy { manifest: manifest_of(&text).expect("it is a manifest") }
            }
        };
        self.world.request(node, request);
    }
}

const NEIGHBOUR: &str = r#"
name = "side"

[source.in]
key = "key"

[stage.count]
from = ["in"]
key = "key"
wasm = "0000000000000000000000000000000000000000000000000000000000000000"

[placement.count]
shares = SHARES
"#;
