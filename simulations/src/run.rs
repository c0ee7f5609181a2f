//! One run of one seed: a mesh, a pipeline, publishers, faults; then peace, and the checkers.
//!
//! | file | what is there |
//! | --- | --- |
//! | `run` | the phases |
//! | `run/clients` | what clients of the nodes ask, and how long they wait |
//! | `run/strike` | faults, each when its time has come |
//! | `run/wounds` | damaged disks: told, then restored from a copy or mended by the node |
//! | `run/letters` | dead letters, replayed and dropped |
//! | `run/redeploys` | changed files, deployed while events flow |
//! | `run/trials` | what a scenario tries besides |
//! | `run/copies` | older copies of data folders, put back |
//! | `run/removal` | a node that never comes back is given up |
//! | `run/judge` | the checkers that look at the world after the run |

mod clients;
mod copies;
mod judge;
mod letters;
mod redeploys;
mod removal;
mod strike;
mod trials;
mod wounds;

use std::collections::BTreeSet;
use std::fmt;

use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::id::{Digest, Name};
use dunlin_protocol::log::record::Body;
use dunlin_protocol::pipeline::manifest::{Manifest, Module, Operator};
use dunlin_protocol::rpc::{Request, Response};
use dunlin_protocol::time::{Span, Time};

use crate::checkers;
use crate::checkers::converged;
use crate::scenario::{Scenario, Trial};
use crate::taps::Taps;
use crate::workload::Publisher;
use crate::world::World;
use strike::Strikes;
use wounds::Wounded;

/// After the faults healed, everything must be through within this much virtual time.
const PEACE: Span = Span(120_000);
/// An event that every try refuses is a dead letter well before.
const TRIES: Span = Span(20_000);
/// A deploy ends within this, though messages and links are lost.
const DEPLOY: Span = Span(20_000);
/// And a silent source says that it is idle within this.
const IDLE: Span = Span(25_000);

/// How a run ended badly, with the exit code that tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// 128: something did not come within its deadline.
    NoProgress(String),
    /// 129: a promise does not hold.
    Promise(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::NoProgress(what) => write!(f, "no progress: {what}"),
            Broken::Promise(what) => write!(f, "a promise is broken: {what}"),
        }
    }
}

/// What a good run tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    pub hash: String,
    pub events: u64,
    pub actors: u64,
    pub virtual_ms: u64,
}

#[derive(Debug)]
pub struct Run {
    pub world: World,
    scenario: Scenario,
    publishers: Vec<Publisher>,
    taps: Taps,
    strikes: Strikes,
    wounded: Vec<Wounded>,
    /// Nodes that a trial keeps down.
    asleep: BTreeSet<usize>,
    next_trial: Time,
    next_redeploy: Time,
    /// When the bounds are looked at again.
    next_look: Time,
    /// Changed files that were deployed so far, and the requests that wait for an answer.
    redeploys: u64,
    redeploying: BTreeSet<RequestId>,
    /// Requests to move letters that wait for an answer, and the letters said to be moved.
    moving: BTreeSet<RequestId>,
    moved: u64,
    /// An older copy of a node's folder, if the scenario has one.
    copies: copies::Copies,
    /// The node that died for good, if the scenario has one.
    removal: Option<removal::Removal>,
}

impl Run {
    pub fn new(seed: u64, scenario: Scenario) -> Run {
        let mut world =
            World::new(seed, scenario.nodes, scenario.gossip, scenario.climate, scenario.segment_bytes);
        if scenario.climate.failing_syncs > 0 {
            world.excused.insert("disk_failed");
        }
        Run {
            world,
            scenario,
            publishers: Vec::new(),
            taps: Taps::default(),
            strikes: Strikes::new(scenario.nodes),
            wounded: Vec::new(),
            asleep: BTreeSet::new(),
            next_trial: Time::MAX,
            next_redeploy: Time(0),
            next_look: Time(0),
            redeploys: 0,
            redeploying: BTreeSet::new(),
            moving: BTreeSet::new(),
            moved: 0,
            copies: copies::Copies::None,
            removal: None,
        }
    }

    pub fn go(&mut self) -> Result<Good, Broken> {
        let began = self.world.now;
        self.begin();
        self.deploy()?;
        self.begin_work();
        self.faults()?;
        let progress = self.peace();
        // What broke is said first: it may be why nothing moves.
        self.unbroken()?;
        progress?;
        let (events, actors) = self.judge()?;
        if self.scenario.climate.clock_off_ms > 0 {
            self.pass(IDLE);
            checkers::idle::check(&self.world, self.victim()).map_err(Broken::NoProgress)?;
        }
        self.try_at_end()?;
        self.unbroken()?;
        let virtual_ms = self.world.now.since(began).0;
        for (_, past) in self.world.history.logs() {
            self.world.trace.bytes(&past.head().hash.0);
        }
        Ok(Good { hash: self.world.trace.hash(), events, actors, virtual_ms })
    }

    /// What the checkers that look on have found, and errors that no fault explains.
    fn unbroken(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.world.watch.broken.take() {
            return Err(Broken::Promise(broken));
        }
        match self.world.errors.first() {
            None => Ok(()),
            Some(error) => Err(Broken::Promise(format!(
                "a node reported an error without a fault that explains it: {error}"
            ))),
        }
    }

    fn begin(&mut self) {
        if matches!(self.scenario.trial, Trial::LateJoin | Trial::Replace) {
            self.asleep.insert(self.last_node());
        }
        for node in 0..self.scenario.nodes {
            if !self.asleep.contains(&node) {
                self.world.start(node, Span(node as u64 * 50));
            }
        }
    }

    /// Time passes; nodes that others do not know yet are introduced.
    fn pass(&mut self, span: Span) {
        let until = self.world.now.after(span);
        while self.world.step(until) {}
        self.introduce();
    }

    /// What a token does: every node can find node 0.
    fn introduce(&mut self) {
        for node in 1..self.scenario.nodes {
            if self.world.is_up(node)
                && self.world.is_up(0)
                && self.world.network.links_of(node).is_empty()
                && self.victim() != Some(node)
            {
                self.world.meet(node, 0);
            }
        }
    }

    fn deploy(&mut self) -> Result<(), Broken> {
        let manifest = manifest_of(&self.scenario.manifest_text()).map_err(Broken::Promise)?;
        self.pass(Span(1_500));
        // One node has the module; the others fetch it.
        self.world.input_soon(0, Input::ModuleHeld { digest: Digest([0; 32]) });
        self.pass(Span(1_500));
        self.try_before_deploy();
        let asked = self.world.now;
        match self.ask(0, &Request::Deploy { manifest }, "the deploy")? {
            Response::Deployed { .. } if self.world.now.since(asked) > DEPLOY => {
                let took = self.world.now.since(asked).0 / 1000;
                Err(Broken::NoProgress(format!("the deploy took {took} seconds")))
            }
            Response::Deployed { .. } => Ok(()),
            other => Err(Broken::Promise(format!("the deploy was answered {other:?}"))),
        }
    }

    fn begin_work(&mut self) {
        let (pipeline, source): (Name, Name) = (name("sim"), name("in"));
        for number in 0..self.scenario.publishers {
            let node = number % self.scenario.nodes;
            self.publishers.push(Publisher::new(
                number,
                node,
                pipeline.clone(),
                source.clone(),
                &self.scenario,
            ));
        }
    }

    /// The safety phase: publishers work while nodes crash and links break.
    fn faults(&mut self) -> Result<(), Broken> {
        let end = self.world.now.after(self.scenario.chaos);
        self.begin_strikes();
        self.try_at_first();
        while self.world.now < end {
            // Sometimes a fault strikes in the very instant in which publishers are answered.
            let pause = Span(self.world.chance.between(0, 12));
            self.work(pause);
            self.strike()?;
            self.try_meanwhile()?;
        }
        self.end_copies()
    }

    /// The liveness phase: nothing breaks any more, so everything comes through.
    fn peace(&mut self) -> Result<(), Broken> {
        self.end_strikes();
        self.restore_all()?;
        let mut deadline = self.world.now.after(PEACE);
        let (last, mut letters) = (self.world.now.after(Span(PEACE.0 * 5)), self.letters());
        self.asleep.clear();
        let victim = self.victim();
        for node in (0..self.scenario.nodes).filter(|node| Some(*node) != victim) {
            self.world.start(node, Span(200));
        }
        let mut missing = String::from("publishers are not done");
        while self.world.now < deadline {
            for _ in 0..50 {
                self.work(Span(20));
                self.ask_for_removal();
            }
            if !self.publishers.iter().all(Publisher::is_done) {
                continue;
            }
            let settled = self.is_removed().and_then(|()| self.is_whole()).and_then(|()| self.is_level());
            let settled = settled.and_then(|()| checkers::level::check(&self.world));
            let settled = settled.and_then(|()| self.close_taps());
            let settled = settled.and_then(|()| converged::check(&self.world, victim));
            match settled {
                Ok(()) => return Ok(()),
                Err(why) => {
                    self.world.trace.line(self.world.now, format!("not yet: {why}"));
                    missing = why;
                }
            }
            // Events that are refused for good take their tries one behind the other where they share a key.
            let now = self.world.now;
            if now >= deadline && now < last {
                let before = std::mem::replace(&mut letters, self.letters());
                deadline = if letters > before { now.after(TRIES) } else { deadline };
            }
        }
        let states: Vec<String> = self
            .publishers
            .iter()
            .map(|publisher| {
                format!("{} at {} of {}", publisher.name, publisher.acknowledged, publisher.total)
            })
            .collect();
        Err(Broken::NoProgress(format!(
            "{} seconds after the last fault: {missing}; {}",
            PEACE.0 / 1000,
            states.join(", ")
        )))
    }

    /// Dead letters that were ever written.
    fn letters(&self) -> usize {
        let records = self.world.history.logs().flat_map(|(place, _)| self.world.history.kept(*place));
        let letters = records.map(|kept| match &*kept.body {
            Body::Commit(commit) => commit.dead.len(),
            _ => 0,
        });
        letters.sum()
    }

    fn work(&mut self, span: Span) {
        for publisher in &mut self.publishers {
            publisher.act(&mut self.world);
        }
        self.taps.pay(&mut self.world);
        self.pass(span);
        while let Some((_, id, response, last)) = self.world.answers.pop_front() {
            self.give(id, &response, last);
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a legal name")
}

/// The pipeline of this text, its guests all the one module that simulated nodes have.
fn manifest_of(text: &str) -> Result<Manifest, String> {
    let mut manifest = Manifest::from_toml(text, "scenario").map_err(|error| error.to_string())?;
    for stage in manifest.stages.values_mut() {
        if let Operator::Wasm(spec) = &mut stage.operator {
            spec.module = Module::Digest(Digest([0; 32]));
        }
    }
    Ok(manifest)
}
