//! Calls of a guest outside a node, for the bench: as a worker makes them, and in wasmtime alone.

use std::fmt;

use bytes::Bytes;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::Operator as _;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Digest, Epoch, EventId, LogId, Name, Seq};
use dunlin_protocol::pipeline::manifest::{Module, WasmLimits, WasmSpec};
use dunlin_protocol::time::Time;

use super::bare::Bare;
use super::engine::{Engine, EngineSettings};
use super::ports::ModuleStore;
use super::wasm::WasmOperator;

/// One guest with one batch, compiled twice: for the sandbox, and for wasmtime alone.
pub struct Trial {
    engine: Engine,
    spec: WasmSpec,
    stage: Name,
    /// Keeps the compiled module in use, so that a cold start compiles nothing.
    operator: WasmOperator,
    bare: Bare,
    batch: Vec<Invoked>,
    state: MemoryState,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The module of a trial.
#[derive(Debug)]
struct One(&'static [u8]);

impl ModuleStore for One {
    fn get(&self, _digest: Digest) -> Result<Option<Bytes>, String> {
        Ok(Some(Bytes::from_static(self.0)))
    }
}

impl Trial {
    /// `payloads`: the batch. Errors are sentences.
    pub fn new(guest: &'static [u8], payloads: Vec<Bytes>) -> Result<Trial, String> {
        let engine = Engine::new(EngineSettings::new(None, [7; 32])).map_err(|error| error.to_string())?;
        let module = Module::Digest(Digest::of(guest));
        let spec = WasmSpec { module, config: "{}".to_string(), limits: WasmLimits::default() };
        let stage: Name = "trial".parse().map_err(|_| "a trial has a name")?;
        let operator =
            WasmOperator::new(&engine, &stage, &spec, &One(guest)).map_err(|error| error.to_string())?;
        let bare = Bare::new(guest).map_err(|error| format!("wasmtime alone does not run it: {error:#}"))?;
        let batch = payloads.into_iter().zip(0..).map(invoked).collect();
        Ok(Trial { engine, spec, stage, operator, bare, batch, state: MemoryState::new() })
    }

    /// One call as a worker makes it; answers with how many events came out.
    pub fn call(&mut self) -> Result<usize, String> {
        let handled = self.operator.handle(&self.batch, Time(1), &mut self.state);
        self.state.undo();
        handled.map(|handled| handled.emitted.len()).map_err(|error| error.reason)
    }

    /// The same from a compiled module alone: the operator is made, an instance, the call, and its end.
    pub fn cold_call(&mut self) -> Result<usize, String> {
        let mut operator = WasmOperator::new(&self.engine, &self.stage, &self.spec, &One(&[]))
            .map_err(|error| error.to_string())?;
        let handled = operator.handle(&self.batch, Time(1), &mut self.state);
        self.state.undo();
        handled.map(|handled| handled.emitted.len()).map_err(|error| error.reason)
    }

    /// The same guest and batch in wasmtime alone.
    pub fn bare_call(&mut self) -> Result<usize, String> {
        self.bare.call(&self.batch).map_err(|error| format!("{error:#}"))
    }
}

fn invoked((payload, index): (Bytes, u32)) -> Invoked {
    let id = EventId { log: LogId([3; 16]), epoch: Epoch(1), seq: Seq(9), index };
    let event = Event { key: Bytes::from_static(b"k"), time: Time(1), headers: Vec::new(), payload };
    Invoked { input: 0, step: None, placed: Placed { id, event } }
}
