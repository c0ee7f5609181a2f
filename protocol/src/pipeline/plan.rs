//! The plan: which units a manifest becomes, and how their outputs are wired.
//!
//! A **unit** is what one actor runs: a head (a source, a wasm or keyed stage, a sink, or nothing
//! for the stateless stages behind a source) and the tree of stateless stages fused behind it. A
//! stage that needs its input by another key than the stream carries gets a fused `Rekey` step in
//! the unit that feeds it, so that at an edge the event's key is always the reader's key.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::manifest::{AnomalySpec, ForecastSpec, LearnSpec, Outlet, Source, StreamName, WasmSpec};
use crate::id::{Name, SLOTS};

/// All units of one manifest, in an order in which every unit comes after those that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub units: Vec<Unit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub id: UnitId,
    pub home: Home,
    /// Inputs in a fixed order; an input's index is what guests and dead letters see.
    pub inputs: Vec<UnitInput>,
    pub chain: Chain,
}

impl Unit {
    /// The unit's input for what another revision read by `was`: the same stream of the same unit if there
    /// is one. What an input brought that is none any more still has to go somewhere.
    pub fn input_for(&self, was: &UnitInput) -> u16 {
        let find = |alike: &dyn Fn(&UnitInput) -> bool| {
            self.inputs.iter().zip(0u16..).find(|(own, _)| alike(own)).map(|(_, index)| index)
        };
        find(&|own| own.unit == was.unit && own.stream == was.stream)
            .or_else(|| find(&|own| own.stream == was.stream))
            .or_else(|| find(&|own| own.unit == was.unit))
            .unwrap_or(0)
    }
}

/// A unit's name within its pipeline: its role and the source, stage or sink that heads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId {
    pub role: Role,
    pub name: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The source log itself; no function runs in it. Its only output, 0, is the raw stream.
    Source,
    /// The stateless stages behind a source, on the same node.
    Behind,
    Stage,
    Sink,
}

/// Where a unit's actors live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Home {
    /// One log on every node where events enter (opened on first use, or at once for connectors).
    Entry(Source),
    /// One actor on every node that holds a log of one of the unit's inputs; it reads only those.
    WithInput,
    /// A fixed number of shares of the key slots, placed by the revision; `None`: by default.
    Shares(Option<u16>),
    /// One actor that takes every slot, placed by the revision.
    Single,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitInput {
    pub unit: UnitId,
    /// Index into that unit's `chain.outputs()`.
    pub output: u16,
    /// The stream that the user named.
    pub stream: StreamName,
}

/// What runs inside one actor: the head takes every input event; its main output and its side
/// outputs feed the steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub head: Head,
    pub steps: Vec<Step>,
    pub outputs: Vec<Output>,
}

impl Chain {
    /// The step that `stage` is now, for what it refused as step `before`. None: it is not fused here
    /// any more, or stands here in several places of which none is the same as before.
    pub fn step_of(&self, stage: &str, before: u16) -> Option<u16> {
        let is = |step: &Step| step.stage.as_str() == stage;
        if self.steps.get(usize::from(before)).is_some_and(is) {
            return Some(before);
        }
        let mut places = (0u16..).zip(&self.steps).filter(|(_, step)| is(step)).map(|(place, _)| place);
        places.next().filter(|_| places.next().is_none())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// A source log: no function.
    None,
    /// Events go to the steps as they came (a `Behind` unit).
    Pass,
    Wasm {
        stage: Name,
        spec: WasmSpec,
    },
    Learn {
        stage: Name,
        spec: LearnSpec,
    },
    Sink {
        sink: Name,
        outlet: Outlet,
    },
    Forecast {
        stage: Name,
        spec: ForecastSpec,
    },
    Anomaly {
        stage: Name,
        spec: AnomalySpec,
    },
}

/// One fused stateless stage. `from` is what feeds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The user's stage; for a `Rekey` the stage that reads it.
    pub stage: Name,
    pub from: Feed,
    pub operator: StepOperator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Feed {
    /// What enters the head by this input (for `Head::Pass`: index 0, the source).
    Head,
    /// The head's side output number n (`scores` of learn and forecast is 0).
    Side(u16),
    /// An earlier step, by index.
    Step(u16),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepOperator {
    Filter(String),
    Map(Vec<(String, String)>),
    /// Sets the event's key to this payload field. An event without it fails.
    Rekey(String),
}

/// A stream that readers and taps may follow. An event is emitted once per output that it reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub stream: StreamName,
    pub from: Feed,
    /// Set on the outputs of `Rekey` steps: the field. Taps follow only outputs without it.
    pub rekeyed: Option<String>,
}

/// Share `index` of `of`: the slots from `index*1024/of` up to, not including, `(index+1)*1024/of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRange {
    pub first: u16,
    /// One past the last; at most 1024.
    pub end: u16,
}

impl SlotRange {
    pub const ALL: SlotRange = SlotRange { first: 0, end: SLOTS };

    /// `index < of`, `1 <= of <= 1024`.
    pub fn of_share(index: u16, of: u16) -> SlotRange {
        let edge = |i: u16| (u32::from(i) * u32::from(SLOTS) / u32::from(of.max(1))) as u16;
        SlotRange { first: edge(index), end: edge(index + 1) }
    }

    pub fn contains(&self, slot: u16) -> bool {
        self.first <= slot && slot < self.end
    }
}

impl Plan {
    pub fn unit(&self, id: &UnitId) -> Option<&Unit> {
        self.units.iter().find(|unit| &unit.id == id)
    }

    /// The units and outputs whose union is the stream `name`, rekeyed copies left out.
    pub fn stream(&self, name: &StreamName) -> Vec<(&Unit, u16)> {
        let mut found = Vec::new();
        for unit in &self.units {
            for (index, output) in unit.chain.outputs.iter().enumerate() {
                if &output.stream == name && output.rekeyed.is_none() {
                    found.push((unit, index as u16));
                }
            }
        }
        found
    }

    /// The units that read `unit`, with the input's index in the reader.
    pub fn readers<'a>(&'a self, unit: &'a UnitId) -> impl Iterator<Item = (&'a Unit, u16)> + 'a {
        self.units.iter().flat_map(move |reader| {
            reader
                .inputs
                .iter()
                .enumerate()
                .filter(move |(_, input)| &input.unit == unit)
                .map(move |(index, _)| (reader, index as u16))
        })
    }
}
