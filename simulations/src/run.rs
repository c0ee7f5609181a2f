//! One run of one seed: a mesh, a pipeline, publishers, faults; then peace, and the checkers.

mod trials;

use std::collections::BTreeSet;
use std::fmt;

use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::id::{Digest, Name};
use dunlin_protocol::pipeline::manifest::{Manifest, Module, Operator, StreamName};
use dunlin_protocol::rpc::{Request, Response, Tail, TailEvent, TailFrom};
use dunlin_protocol::time::{Span, Time};

use crate::chance::Chance;
use crate::checkers;
use crate::scenario::{Scenario, Trial};
use crate::workload::{Publisher, acknowledged};
use crate::world::World;

/// After the faults healed, everything must be through within this much virtual time.
const PEACE: Span = Span(120_000);
/// A client without an answer gives up.
const CLIENT_PATIENCE: Span = Span(40_000);
const CREDIT: u64 = 1 << 40;

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
    next_crash: Time,
    next_cut: Time,
    heal_at: Time,
    next_trial: Time,
    /// Changed files that were deployed so far, and the requests that wait for an answer.
    redeploys: u64,
    redeploying: BTreeSet<RequestId>,
}

impl Run {
    pub fn new(seed: u64, scenario: Scenario) -> Run {
        let climate = scenario.climate(&mut Chance::new(seed ^ 0x5eed));
        let world = World::new(seed, scenario.nodes, climate);
        Run {
            world,
            scenario,
            publishers: Vec::new(),
            next_crash: Time::MAX,
            next_cut: Time::MAX,
            heal_at: Time::MAX,
            next_trial: Time::MAX,
            redeploys: 0,
            redeploying: BTreeSet::new(),
        }
    }

    pub fn go(&mut self) -> Result<Good, Broken> {
        let began = self.world.now;
        for node in 0..self.scenario.nodes - usize::from(self.scenario.trial == Trial::LateJoin) {
            self.world.start(node, Span(node as u64 * 50));
        }
        self.deploy()?;
        self.begin_work();
        self.faults()?;
        let progress = self.peace();
        if let Some(error) = self.world.errors.first() {
            return Err(Broken::Promise(format!(
                "a node reported an error without a fault that explains it: {error}"
            )));
        }
        progress?;
        let (events, actors) = self.judge()?;
        self.try_at_end()?;
        let virtual_ms = self.world.now.since(began).0;
        Ok(Good { hash: self.world.trace.hash(), events, actors, virtual_ms })
    }

    /// Every property's checker. Returns how many events and actors they saw.
    fn judge(&mut self) -> Result<(u64, u64), Broken> {
        if let Some(broken) = self.world.credit.broken.take() {
            return Err(Broken::Promise(broken));
        }
        let entered = match self.scenario.may_lose() {
            true => checkers::tail::check(&self.world).map_err(Broken::Promise)?,
            false => {
                checkers::kept::check(&self.world, &self.publishers).map_err(Broken::Promise)?;
                acknowledged(&self.publishers).into_keys().collect()
            }
        };
        let again: BTreeSet<_> = match self.scenario.may_lose() {
            true => checkers::tail::lost(&self.world.lost),
            false => BTreeSet::new(),
        };
        let (twice, last) = match self.scenario.retention {
            "" => (self.tail("twice")?, self.tail("last")?),
            _ => {
                let read = |stream| checkers::streams::on_disk(&self.world, stream).map_err(Broken::Promise);
                (read("twice")?, read("last")?)
            }
        };
        checkers::once::check(&twice, &entered, &again).map_err(Broken::Promise)?;
        checkers::order::check(&twice, &again).map_err(Broken::Promise)?;
        checkers::once::check(&last, &entered, &again).map_err(Broken::Promise)?;
        let actors = checkers::oracle::check(&self.world).map_err(Broken::Promise)?;
        if let Some(error) = self.world.errors.first() {
            return Err(Broken::Promise(format!(
                "a node reported an error without a fault that explains it: {error}"
            )));
        }
        Ok((entered.len() as u64, actors))
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
            if self.world.is_up(node) && self.world.is_up(0) && self.world.network.links_of(node).is_empty() {
                self.world.meet(node, 0);
            }
        }
    }

    fn ask(&mut self, node: usize, request: &Request, what: &str) -> Result<Response, Broken> {
        let deadline = self.world.now.after(CLIENT_PATIENCE);
        while self.world.now < deadline {
            let id = self.world.request(node, request.clone());
            if let Some(response) = self.await_answer(id, Span(8_000))?.pop() {
                match response {
                    Response::Failed(fault) => {
                        self.world.trace.line(self.world.now, format!("{what} is refused: {}", fault.detail));
                    }
                    good => return Ok(good),
                }
            }
            self.pass(Span(500));
        }
        Err(Broken::NoProgress(format!("{what} was not answered well")))
    }

    /// All answers to one request, until the last or until patience ends.
    fn await_answer(&mut self, id: RequestId, patience: Span) -> Result<Vec<Response>, Broken> {
        let deadline = self.world.now.after(patience);
        let mut answers = Vec::new();
        while self.world.now < deadline {
            self.pass(Span(20));
            while let Some((_, of, response, last)) = self.world.answers.pop_front() {
                if of == id {
                    answers.push(response);
                    if last {
                        return Ok(answers);
                    }
                } else {
                    self.give_publishers(of, &response)?;
                }
            }
        }
        Ok(Vec::new())
    }

    fn give_publishers(&mut self, id: RequestId, response: &Response) -> Result<(), Broken> {
        for publisher in &mut self.publishers {
            if publisher.on_answer(id, response, &mut self.world).map_err(Broken::Promise)? {
                break;
            }
        }
        Ok(())
    }

    fn deploy(&mut self) -> Result<(), Broken> {
        let manifest = manifest_of(&self.scenario).map_err(Broken::Promise)?;
        self.pass(Span(1_500));
        for node in 0..self.scenario.nodes {
            self.world.input_soon(node, Input::ModuleHeld { digest: Digest([0; 32]) });
        }
        self.pass(Span(1_500));
        self.try_before_deploy();
        match self.ask(0, &Request::Deploy { manifest }, "the deploy")? {
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
        let chance = &mut self.world.chance;
        let mut draw = |every: u64, now: Time| match every {
            0 => Time::MAX,
            every => now.after(Span(chance.between(1, every))),
        };
        let now = self.world.now;
        self.next_crash = draw(self.scenario.crash_every, now);
        self.next_cut = draw(self.scenario.cut_every, now);
        let end = now.after(self.scenario.chaos);
        self.try_at_first();
        while self.world.now < end {
            // Sometimes a fault strikes in the very instant in which publishers are answered.
            let pause = Span(self.world.chance.between(0, 12));
            self.work(pause);
            self.strike();
            self.try_meanwhile()?;
        }
        Ok(())
    }

    fn work(&mut self, span: Span) {
        for publisher in &mut self.publishers {
            publisher.act(&mut self.world);
        }
        self.pass(span);
        while let Some((_, id, response, _)) = self.world.answers.pop_front() {
            if self.redeploying.remove(&id) {
                self.on_redeployed(&response);
            }
            for publisher in &mut self.publishers {
                match publisher.on_answer(id, &response, &mut self.world) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(why) => self.world.errors.push(why),
                }
            }
        }
    }

    fn strike(&mut self) {
        let nodes = self.scenario.nodes as u64;
        if self.world.now >= self.next_crash {
            self.next_crash =
                self.world.now.after(Span(self.world.chance.between(1, self.scenario.crash_every * 2)));
            let victim = self.world.chance.between(0, nodes - 1) as usize;
            let all = self.world.chance.one_in(6);
            for node in 0..self.scenario.nodes {
                if all || node == victim {
                    self.world.crash(node);
                    let after = Span(self.world.chance.between(1, 1_500));
                    self.world.start(node, after);
                }
            }
        }
        if self.world.now >= self.heal_at {
            self.world.network.heal();
            self.heal_at = Time::MAX;
        }
        if self.world.now >= self.next_cut && nodes > 1 {
            self.next_cut =
                self.world.now.after(Span(self.world.chance.between(1, self.scenario.cut_every * 2)));
            self.heal_at = self.world.now.after(Span(self.world.chance.between(50, 3_000)));
            let victim = self.world.chance.between(0, nodes - 1) as usize;
            let other = self.world.chance.between(0, nodes - 1) as usize;
            let whole = self.world.chance.one_in(2);
            for node in 0..self.scenario.nodes {
                if node != victim && (whole || node == other) {
                    self.world.network.cut(victim, node);
                    self.world.unlink(victim, node);
                }
            }
        }
    }

    /// The liveness phase: nothing breaks any more, so everything comes through.
    fn peace(&mut self) -> Result<(), Broken> {
        self.world.network.heal();
        self.world.climate.link_loss = 0;
        self.world.climate.message_loss = 0;
        self.world.stalled = None;
        self.world.nodes.iter_mut().for_each(|node| node.disk.full = false);
        let deadline = self.world.now.after(PEACE);
        for node in 0..self.scenario.nodes {
            self.world.start(node, Span(200));
        }
        while self.world.now < deadline {
            for _ in 0..50 {
                self.work(Span(20));
            }
            if self.publishers.iter().all(Publisher::is_done) && self.is_level()? {
                return Ok(());
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
            "{PEACE:?} after the last fault: {}; {}",
            states.join(", "),
            self.laggards()
        )))
    }

    /// Every node knows all facts that any of them has told.
    fn facts_are_level(&self) -> bool {
        let mut heads =
            self.world.nodes.iter().filter_map(|node| node.peer.as_ref()).map(|peer| peer.catalog().heads());
        let first = heads.next();
        heads.all(|other| Some(&other) == first.as_ref())
    }

    /// Nobody lags, as `show` tells.
    fn is_level(&mut self) -> Result<bool, Broken> {
        if !self.facts_are_level() {
            return Ok(false);
        }
        let id = self.world.request(0, Request::Show { pipeline: name("sim") });
        let answer = self.await_answer(id, Span(10_000))?.pop();
        let Some(Response::Shown(shown)) = answer else { return Ok(false) };
        let mut actors = shown.stages.iter().flat_map(|stage| &stage.actors);
        let level = actors.all(|actor| actor.lag == 0 && actor.trouble.is_none() && actor.epoch > 0);
        Ok(level && self.facts_are_level())
    }

    /// The actors that lag, as `show` tells.
    fn laggards(&mut self) -> String {
        let id = self.world.request(0, Request::Show { pipeline: name("sim") });
        let Ok(Some(Response::Shown(shown))) = self.await_answer(id, Span(10_000)).map(|mut all| all.pop())
        else {
            return "the pipeline cannot be shown".into();
        };
        let actors =
            shown.stages.iter().flat_map(|stage| stage.actors.iter().map(move |actor| (&stage.stage, actor)));
        let lagging =
            actors.filter(|(_, actor)| actor.lag > 0 || actor.trouble.is_some() || actor.epoch == 0);
        let said = lagging.map(|(stage, actor)| format!("{stage} lags {} ({:?})", actor.lag, actor.trouble));
        said.collect::<Vec<String>>().join(", ")
    }

    /// Everything that a tap of this stream sees from its start.
    fn tail(&mut self, stream: &str) -> Result<Vec<TailEvent>, Broken> {
        let tail = Tail {
            pipeline: name("sim"),
            stream: StreamName { base: name(stream), side: None },
            from: TailFrom::Start,
            limit: None,
            follow: false,
            credit: CREDIT,
        };
        let node = self.world.chance.between(0, self.scenario.nodes as u64 - 1) as usize;
        let id = self.world.request(node, Request::Tail(tail));
        let mut all = Vec::new();
        for response in self.await_answer(id, Span(30_000))? {
            match response {
                Response::Events { events } => all.extend(events),
                other => return Err(Broken::Promise(format!("a tap was answered {other:?}"))),
            }
        }
        Ok(all)
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a legal name")
}

fn manifest_of(scenario: &Scenario) -> Result<Manifest, String> {
    parsed(&scenario.manifest_text())
}

fn parsed(text: &str) -> Result<Manifest, String> {
    let mut manifest = Manifest::from_toml(text, "scenario").map_err(|error| error.to_string())?;
    for stage in manifest.stages.values_mut() {
        if let Operator::Wasm(spec) = &mut stage.operator {
            spec.module = Module::Digest(Digest([0; 32]));
        }
    }
    Ok(manifest)
}
