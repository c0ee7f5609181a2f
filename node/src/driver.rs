//! The driver: it owns `Peer`. Inputs in, effects out; it never awaits a peer, a function or a disk.
//!
//! Besides the simulator's world it is the only caller of `Peer::handle`. Every effect is handed to
//! the room that carries it out, which takes it without blocking and answers through the inbox. A
//! panic here ends the process, which recovers from its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dunlin_protocol::effect::{ConnectorState, Effect, Effects, Input, Timer};
use dunlin_protocol::id::{Digest, LogId, Name};
use dunlin_protocol::mesh::roll::Roll;
use dunlin_protocol::peer::{JUST_STARTED, Peer};
use dunlin_protocol::pipeline::manifest::{Connector, Manifest, Source};
use dunlin_protocol::rpc::{Fault, FaultKind, Response};
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::Message;
use tokio::sync::watch;

use crate::api::answers::Doors;
use crate::api::door::Sources;
use crate::api::metrics::Metrics;
use crate::clock::Clock;
use crate::connectors::{Connectors, Tally, rejected};
use crate::crash::{self, Point};
use crate::functions::Functions;
use crate::inbox::Inputs;
use crate::network::Network;
use crate::storage::{StateStore, Storage};
use crate::telemetry::Voice;
use crate::wiring::{ConnectorDoor, Shelf};

/// Inputs handled before timers are looked at again.
const INPUTS_AT_ONCE: usize = 256;
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// How often modules are looked through, how old one is before it may go, and how many go in one step.
const COLLECT_EVERY: Duration = Duration::from_secs(10);
const MODULE_GRACE: Duration = Duration::from_secs(3600);
/// The same for one that a pipeline named while this node ran: somebody may be about to name it again.
const NAMED_GRACE: Duration = Duration::from_secs(20);
const COLLECT_AT_ONCE: usize = 16;

/// The rooms that carry out what the core wants.
#[derive(Debug)]
pub struct Rooms {
    pub storage: Storage,
    pub state: StateStore,
    pub functions: Functions,
    pub network: Network,
    pub connectors: Connectors<ConnectorDoor>,
    pub doors: Doors,
    pub metrics: Metrics,
    pub modules: Shelf,
    pub data_folder: PathBuf,
}

/// The deployed manifests, for whoever parses events before the core sees them; before the node serves, why it
/// does not.
#[derive(Debug)]
pub struct Deployed(RwLock<Result<BTreeMap<Name, Arc<Manifest>>, Fault>>);

impl Default for Deployed {
    fn default() -> Deployed {
        let kind = FaultKind::Busy { retry_after_ms: 200 };
        Deployed(RwLock::new(Err(Fault { kind, detail: JUST_STARTED.into() })))
    }
}

impl Sources for Deployed {
    fn source(&self, pipeline: &Name, source: &Name) -> Result<Source, Fault> {
        let deployed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let unknown = |detail| Fault { kind: FaultKind::Unknown, detail };
        // While it is not known what is deployed, nothing can be said not to be there.
        let deployed = deployed.as_ref().map_err(Fault::clone)?;
        let Some(manifest) = deployed.get(pipeline) else {
            return Err(unknown(format!(
                "there is no pipeline '{pipeline}' in this mesh; deploy it first, or see `dunlin pipelines`"
            )));
        };
        match manifest.sources.get(source) {
            Some(found) if found.connector == Connector::Publish => Ok(found.clone()),
            Some(_) => Err(Fault {
                kind: FaultKind::Invalid,
                detail: format!(
                    "source '{source}' of '{pipeline}' is fed by its own connector and takes no published events"
                ),
            }),
            None => {
                let names: Vec<&str> = manifest.sources.keys().map(Name::as_str).collect();
                Err(unknown(format!(
                    "pipeline '{pipeline}' has no source '{source}'; it has {}",
                    names.join(", ")
                )))
            }
        }
    }
}

#[derive(Debug)]
pub struct Driver {
    peer: Peer,
    clock: Clock,
    inbox: Inputs,
    rooms: Rooms,
    deployed: Arc<Deployed>,
    /// The catalog's version that `deployed` shows.
    shown: Option<u64>,
    /// The catalog's version and who may come in by it, as the network was told last; none before the disk
    /// has been told in full.
    admitted: Option<(u64, Roll)>,
    due: BTreeSet<(Time, Timer)>,
    timers: BTreeMap<Timer, Time>,
    effects: Effects,
    /// What the storage answered at once: it goes before all that waits in the inbox.
    answered: VecDeque<Input>,
    /// When modules were looked through last.
    collected: Instant,
    /// Modules that a pipeline named since the start.
    were_named: BTreeSet<Digest>,
    voice: Voice,
    /// Why the node is not to go on.
    ended: Option<String>,
}

impl Driver {
    pub fn new(peer: Peer, clock: Clock, inbox: Inputs, rooms: Rooms, deployed: Arc<Deployed>) -> Driver {
        Driver {
            peer,
            clock,
            inbox,
            rooms,
            deployed,
            shown: None,
            admitted: None,
            due: BTreeSet::new(),
            timers: BTreeMap::new(),
            effects: Effects::new(),
            answered: VecDeque::new(),
            collected: Instant::now(),
            were_named: BTreeSet::new(),
            voice: Voice::default(),
            ended: None,
        }
    }

    /// Before the rooms send anything: what the disk held, then `Start`.
    pub fn recover(&mut self, input: Input) {
        self.handle(input);
    }

    /// Until told to stop, or until the core says why the node is not to go on; gives the rooms back, to be
    /// closed in order. `open` becomes true once the node serves.
    pub async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        open: watch::Sender<bool>,
    ) -> (Rooms, Option<String>) {
        self.admit();
        self.handle(Input::Start);
        let mut measure = tokio::time::interval(MEASURE_EVERY);
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        // What the timer was set for last: it is touched only when that changes.
        let mut set_for = None;
        loop {
            if self.peer.is_open() && !*open.borrow() {
                open.send_replace(true);
            }
            let next = self.due.first().map(|(at, _)| *at);
            if let Some(at) = next.filter(|_| next != set_for) {
                timer.as_mut().reset(self.clock.instant_of(at).into());
            }
            set_for = next;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return (self.rooms, None),
                () = &mut timer, if next.is_some() => {
                    // It has to be set again, should the clock say that nothing is due yet.
                    set_for = None;
                    self.fire();
                }
                input = self.inbox.recv() => match input {
                    Some(input) => self.take(input),
                    None => return (self.rooms, None),
                },
                _ = measure.tick() => self.measure(),
            }
            if let Some(why) = self.ended.take() {
                return (self.rooms, Some(why));
            }
        }
    }

    /// One input and whatever waits behind it.
    fn take(&mut self, input: Input) {
        self.handle(input);
        for _ in 1..INPUTS_AT_ONCE {
            match self.inbox.try_recv() {
                Some(input) => self.handle(input),
                None => return,
            }
        }
    }

    fn fire(&mut self) {
        let now = self.clock.now();
        while let Some((at, timer)) = self.due.first().cloned() {
            if at > now {
                return;
            }
            self.due.pop_first();
            self.timers.remove(&timer);
            self.handle(Input::Timer(timer));
        }
    }

    fn measure(&mut self) {
        let rss_bytes = resident_bytes();
        let disk_bytes = self.rooms.storage.disk_bytes();
        let tallies = self.rooms.connectors.tallies();
        let state = |tally: &Tally| ConnectorState {
            log: tally.log,
            rejected: tally.rejected,
            trouble: tally.trouble.clone(),
        };
        let connectors = tallies.iter().map(state).collect();
        self.handle(Input::Measured { rss_bytes, disk_bytes, connectors });
        let sum = |of: fn(&Tally) -> u64| -> u64 { tallies.iter().map(of).sum() };
        let metrics = &self.rooms.metrics;
        // Gauges: a connector that ends takes its own numbers with it.
        metrics.gauge("connector_lines_rejected").set(sum(|tally| tally.rejected));
        metrics.gauge("connector_samples_skipped").set(sum(|tally| tally.skipped));
        metrics.gauge("connector_restarts").set(sum(|tally| tally.restarts));
        let counters = self.rooms.network.counters();
        for (name, value) in counters.totals() {
            self.rooms.metrics.counter(name).set(value);
        }
        self.collect_modules();
    }

    /// Modules that nobody names any more go, once they had their time: an upload comes before the
    /// deploy that names it. The core hears of it in the same step, so no deploy falls in between.
    fn collect_modules(&mut self) {
        if self.collected.elapsed() < COLLECT_EVERY || !self.peer.is_open() {
            return;
        }
        self.collected = Instant::now();
        let named = self.peer.modules_named();
        let modules = &self.rooms.modules;
        let (old, older) = match (modules.older_than(NAMED_GRACE), modules.older_than(MODULE_GRACE)) {
            (Ok(old), Ok(older)) => (old, older),
            (Err(error), _) | (_, Err(error)) => {
                return tracing::warn!(%error, "the modules cannot be looked through");
            }
        };
        let over = |digest: &Digest| self.were_named.contains(digest) || older.contains(digest);
        let old: Vec<Digest> =
            old.into_iter().filter(|digest| !named.contains(digest) && over(digest)).collect();
        for digest in old.into_iter().take(COLLECT_AT_ONCE) {
            match self.rooms.modules.remove(digest) {
                Ok(()) => {
                    self.were_named.remove(&digest);
                    self.handle(Input::ModuleGone { digest });
                }
                Err(error) => tracing::warn!(%digest, %error, "a module that nobody names cannot be removed"),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.handle_one(input);
        // It ends: whatever is appended upon an answer had to be read, called or published first.
        while let Some(input) = self.answered.pop_front() {
            self.handle_one(input);
        }
    }

    fn handle_one(&mut self, input: Input) {
        self.rooms.storage.heard(&input);
        let mut effects = std::mem::take(&mut self.effects);
        let persisted = matches!(input, Input::Persisted { .. });
        self.peer.handle(self.clock.now(), input, &mut effects);
        if persisted {
            crash::at(Point::AfterPersisted);
        }
        // Before an answer says that tokens were rotated.
        if self.admitted.is_some() {
            self.admit();
        }
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
        self.show_deployed();
    }

    /// Tells the network who may come in, and the data folder what tokens are made with.
    fn admit(&mut self) {
        let facts = self.peer.catalog().facts();
        let (version, roll) = (facts.version(), facts.roll());
        if let Some((at, told)) = &mut self.admitted
            && (*at == version || told == roll)
        {
            *at = version;
            return;
        }
        self.rooms.network.admit(roll);
        let told = self.admitted.as_ref().map_or(0, |(_, told)| told.rotations.len());
        if told != roll.rotations.len() {
            // Once for each rotation and start; who asked for it makes a token by this file at once.
            let bytes = codec::encode(&roll.rotations);
            if let Err(error) = crate::data_folder::write_rotations(&self.rooms.data_folder, &bytes) {
                tracing::error!(%error, "tokens that this node's folder gives are revoked ones");
            }
        }
        self.admitted = Some((version, roll.clone()));
    }

    fn show_deployed(&mut self) {
        let version = self.peer.catalog().facts().version();
        let closed = self.peer.closed();
        if closed.is_none() && self.shown == Some(version) {
            return;
        }
        let shown = match closed {
            Some(why) => Err(why),
            None => {
                self.shown = Some(version);
                self.were_named.extend(self.peer.modules_named());
                Ok(self.peer.manifests())
            }
        };
        *self.deployed.0.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn carry_out(&mut self, effect: Effect) {
        let rooms = &mut self.rooms;
        match effect {
            Effect::CreateLog { log, name } => rooms.storage.create_log(log, &name),
            Effect::Persist { log, records, durability } => {
                crash::at(Point::BeforePersist);
                self.answered.extend(rooms.storage.persist(log, records, durability));
            }
            Effect::WriteAnew { log, records } => rooms.storage.write_anew(log, records),
            Effect::Read { log, read, from, bytes_max } => rooms.storage.read(log, read, from, bytes_max),
            Effect::Snapshot { log, at, fold, state: true } => rooms.functions.snapshot(log, at, fold),
            Effect::Snapshot { log, at, fold, state: false } => rooms.storage.snapshot(log, at, fold),
            Effect::Truncate { log, before } => rooms.storage.truncate(log, before),
            Effect::RemoveLog { log } => rooms.remove_log(log),
            Effect::Host { actor, spec, head } => rooms.functions.host(actor, spec, head),
            Effect::Unhost { actor } => rooms.functions.unhost(actor),
            Effect::Invoke { actor, call, batch, now } => rooms.functions.invoke(actor, call, batch, now),
            Effect::Apply { actor, position } => rooms.functions.apply(actor, position),
            Effect::Discard { actor } => rooms.functions.discard(actor),
            Effect::LookUp { actor, look, key, limit } => rooms.functions.look_up(actor, look, key, limit),
            Effect::Send { to, message } => {
                if matches!(message, Message::Batch { .. }) {
                    crash::at(Point::BeforeSend);
                }
                rooms.network.send(to, message);
            }
            Effect::JoinTopic { topic, writer } => rooms.network.join_topic(topic, writer),
            Effect::LeaveTopic { topic } => rooms.network.leave_topic(topic),
            Effect::Broadcast { topic, broadcast } => {
                crash::at(Point::BeforeSend);
                if !rooms.network.broadcast(topic, &broadcast) {
                    self.answered.push_back(Input::NotBroadcast { topic });
                }
            }
            Effect::Dial { node, addresses } => rooms.network.dial(node, addresses),
            Effect::Disconnect { node } => rooms.network.disconnect(node),
            Effect::Answer { id, response, last } => {
                let acknowledges = matches!(response, Response::Published { .. });
                if acknowledges {
                    crash::at(Point::BeforeAnswer);
                }
                rooms.doors.answer(id, response, last);
                if acknowledges {
                    crash::at(Point::AfterAnswer);
                }
            }
            Effect::SetTimer { timer, at } => self.set_timer(timer, at),
            Effect::FetchModule { digest, holders } => rooms.network.fetch_module(digest, holders),
            Effect::StartConnector { log, stream, next } => rooms.connectors.start(log, stream, next),
            Effect::StopConnector { log } => rooms.connectors.stop(log),
            Effect::Stop { why } => self.ended = Some(why),
            Effect::Report(report) => {
                rooms.metrics.count(report.what, 1);
                self.voice.say(self.clock.now(), &report);
            }
        }
    }

    fn set_timer(&mut self, timer: Timer, at: Time) {
        if let Some(before) = self.timers.insert(timer.clone(), at) {
            self.due.remove(&(before, timer.clone()));
        }
        self.due.insert((at, timer));
    }
}

impl Rooms {
    fn remove_log(&mut self, log: LogId) {
        self.storage.remove_log(log);
        let state = self.state.clone();
        let sink_note = self.data_folder.join("sinks").join(log.to_string());
        let data_folder = self.data_folder.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = state.remove(log) {
                tracing::warn!(%log, %error, "the keyed state of a removed log is not gone yet");
            }
            // Only sinks have one.
            let _ = std::fs::remove_file(sink_note);
            rejected::forget(&data_folder, log);
        });
    }
}

/// This process's resident memory; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
