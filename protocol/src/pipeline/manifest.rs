//! What a pipeline file says, as types that cannot be wrong. Parsing is in `parse`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Name};
use crate::time::Span;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: Name,
    pub durability: Durability,
    /// Copies of each log; only 1 in this version.
    pub copies: u8,
    pub retention: Retention,
    pub sources: BTreeMap<Name, Source>,
    pub stages: BTreeMap<Name, Stage>,
    pub sinks: BTreeMap<Name, Sink>,
    pub placement: BTreeMap<Name, PlacementRule>,
}

/// When an append counts: at once (`Memory`), written (`Page`), or synced (`Disk`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Durability {
    Memory,
    Page,
    #[default]
    Disk,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Memory => "memory",
            Durability::Page => "page",
            Durability::Disk => "disk",
        })
    }
}

/// How long records are kept after every reader has passed them, and what happens when unread
/// records alone fill `bytes` (per log).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub age: Span,
    pub bytes: u64,
    pub when_full: WhenFull,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { age: Span::seconds(7 * 86_400), bytes: 10 << 30, when_full: WhenFull::Block }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WhenFull {
    #[default]
    Block,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Payload field that becomes the event's key; none: the empty key.
    pub key: Option<String>,
    /// Payload field that becomes the event's time; none: time of arrival.
    pub time: Option<String>,
    pub lateness: Span,
    pub connector: Connector,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connector {
    /// Events come through `publish` and HTTP.
    Publish,
    File {
        path: String,
        pace: Pace,
    },
    Host {
        every: Span,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    Fast,
    /// Event time runs this many times faster than the clock; 1 is "real".
    Times(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    pub from: Vec<StreamName>,
    /// Payload field by which the stage's events are spread over its shares.
    pub key: Option<String>,
    pub operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sink {
    pub from: Vec<StreamName>,
    pub outlet: Outlet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outlet {
    Http { url: String },
    File { path: String },
    Stdout,
}

/// A source's or stage's output: `clean`, or `outlook.scores`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamName {
    pub base: Name,
    pub side: Option<Name>,
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.side {
            None => write!(f, "{}", self.base),
            Some(side) => write!(f, "{}.{side}", self.base),
        }
    }
}

/// What a stage does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// A CEL expression over `event`; true lets the event pass.
    Filter(String),
    /// Field -> CEL expression; the new payload, fields in file order. The key stays.
    Map(Vec<(String, String)>),
    Wasm(WasmSpec),
    Learn(LearnSpec),
    Forecast(ForecastSpec),
    Anomaly(AnomalySpec),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmSpec {
    pub module: Module,
    /// The `config` table as a JSON object's text; `{}` when absent.
    pub config: String,
    pub limits: WasmLimits,
}

/// Before the upload a path, in a revision always a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Module {
    Path(String),
    Digest(Digest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmLimits {
    /// Fuel per call.
    pub fuel: u64,
    /// Bytes of linear memory.
    pub memory: u64,
}

impl Default for WasmLimits {
    fn default() -> Self {
        WasmLimits { fuel: 1_000_000_000, memory: 64 << 20 }
    }
}

/// The `learn` table. Fractions are `F64`, an f64 compared by its bits, so that manifests can be
/// compared and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnSpec {
    pub label: Label,
    /// None: every other field, encoded by its kind.
    pub features: Option<Vec<String>>,
    pub models: Option<Vec<String>>,
    /// Central coverage of `low`..`high`; default 0.9.
    pub interval: Option<F64>,
    pub seed: u64,
}

/// Where the truth comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// `target` of this key's first event at least `after` later; `rises_by`: and whether it rose
    /// by more than that fraction.
    Later { target: String, after: Span, rises_by: Option<F64> },
    /// `label` in the same row, not to be seen before the time in field `label_at`.
    SameRow { label: String, label_at: Option<String> },
}

/// The `forecast` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastSpec {
    pub targets: Vec<String>,
    pub horizon: Horizon,
    /// None: every number that a key's first event carries.
    pub features: Option<Vec<String>>,
    pub models: Option<Vec<String>>,
    /// Central coverage of `low`..`high`; default 0.9.
    pub interval: Option<F64>,
    pub seed: u64,
}

/// The `anomaly` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnomalySpec {
    /// None: every number that a key's first event carries.
    pub features: Option<Vec<String>>,
    /// Events of a key by which the next ones are judged.
    pub window: u32,
    pub seed: u64,
}

/// How far a forecast looks ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Horizon {
    /// Each of the next so many events of the key.
    Steps(u16),
    /// The key's first event at least so much later; ascending, each once.
    Spans(Vec<Span>),
}

/// A finite f64 compared by its bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct F64(pub f64);

impl PartialEq for F64 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for F64 {}

/// `[placement.STAGE]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacementRule {
    /// Only nodes that carry all of these labels.
    pub labels: BTreeMap<String, String>,
    pub shares: Option<u16>,
    /// Spread the shares of an unkeyed stage over nodes instead of staying where its input is.
    pub spread: bool,
}

impl Operator {
    /// Whether the stage has a side output with its settled predictions.
    pub fn scores(&self) -> bool {
        match self {
            Operator::Learn(_) | Operator::Forecast(_) => true,
            Operator::Filter(_) | Operator::Map(_) | Operator::Wasm(_) | Operator::Anomaly(_) => false,
        }
    }
}

impl Manifest {
    /// The modules that must be on every node that runs this, in order, each once.
    pub fn modules(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = self
            .stages
            .values()
            .filter_map(|stage| match &stage.operator {
                Operator::Wasm(WasmSpec { module: Module::Digest(digest), .. }) => Some(*digest),
                Operator::Wasm(_)
                | Operator::Filter(_)
                | Operator::Map(_)
                | Operator::Learn(_)
                | Operator::Forecast(_)
                | Operator::Anomaly(_) => None,
            })
            .collect();
        digests.sort();
        digests.dedup();
        digests
    }
}
