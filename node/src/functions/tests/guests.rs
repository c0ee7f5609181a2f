//! What the tests share: guests built once by cargo, batches, and stores in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dunlin_operators::operator::State;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Digest, Epoch, EventId, LogId, Position, Seq};
use dunlin_protocol::log::record::Change;
use dunlin_protocol::pipeline::manifest::{Module, WasmLimits, WasmSpec};
use dunlin_protocol::time::Time;

use crate::functions::engine::{Engine, EngineSettings};
use crate::functions::ports::{ModuleStore, Pair, Ports, SnapshotWriter, StateStore};
use crate::functions::wasm::WasmOperator;

pub const NOW: Time = Time(1_551_525_014_500);

static BUILT: LazyLock<[Bytes; 2]> = LazyLock::new(|| {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/functions");
    let target = Path::new(env!("OUT_DIR")).join("guests");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", "wasm32-wasip2"])
        .args(["--package", "count", "--package", "trouble", "--target-dir"])
        .arg(&target)
        .current_dir(functions)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .status()
        .unwrap();
    assert!(status.success(), "the guests do not build");
    ["count", "trouble"].map(|name| {
        let path = target.join("wasm32-wasip2/release").join(name).with_extension("wasm");
        Bytes::from(std::fs::read(path).unwrap())
    })
});

pub fn clean() -> Bytes {
    Bytes::from_static(crate::functions::CLEAN_GUEST)
}

pub fn count() -> Bytes {
    BUILT[0].clone()
}

pub fn trouble() -> Bytes {
    BUILT[1].clone()
}

pub fn settings() -> EngineSettings {
    EngineSettings { cache: None, instances: 2, call_time_max: Duration::from_secs(60), seed: [7; 32] }
}

/// One engine for most tests.
pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(settings()).unwrap());

pub fn spec(module: &Bytes, config: &str, limits: WasmLimits) -> WasmSpec {
    WasmSpec { module: Module::Digest(Digest::of(module)), config: config.to_owned(), limits }
}

pub fn operator(engine: &Engine, module: &Bytes, config: &str, limits: WasmLimits) -> WasmOperator {
    let store = Memory::with_module(module);
    WasmOperator::new(engine, &"stage".parse().unwrap(), &spec(module, config, limits), &*store).unwrap()
}

/// A batch of events with these keys and payloads.
pub fn batch(events: &[(&str, &str)]) -> Vec<Invoked> {
    let placed = |(index, (key, payload)): (usize, &(&str, &str))| Invoked {
        input: 0,
        step: None,
        placed: Placed {
            id: EventId { log: LogId([3; 16]), epoch: Epoch(1), seq: Seq(9), index: index as u32 },
            event: Event {
                key: Bytes::copy_from_slice(key.as_bytes()),
                time: Time(1_551_525_014_000),
                headers: vec![("trace".to_owned(), Bytes::from_static(b"t1"))],
                payload: Bytes::copy_from_slice(payload.as_bytes()),
            },
        },
    };
    events.iter().enumerate().map(placed).collect()
}

pub fn position(seq: u64) -> Position {
    Position { epoch: Epoch(1), seq: Seq(seq), ..Position::START }
}

/// A call's state without a store behind it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plain(pub BTreeMap<Bytes, Bytes>);

impl State for Plain {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }
    fn put(&mut self, key: &[u8], value: Bytes) {
        self.0.insert(Bytes::copy_from_slice(key), value);
    }
    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<Pair> {
        scan(&self.0, prefix, limit)
    }
}

fn scan(pairs: &BTreeMap<Bytes, Bytes>, prefix: &[u8], limit: usize) -> Vec<Pair> {
    let found = pairs.iter().filter(|(key, _)| key.starts_with(prefix));
    found.map(|(key, value)| (key.clone(), value.clone())).take(limit).collect()
}

/// The storage of one actor, in memory: its log is the list of what was applied.
#[derive(Debug, Default)]
pub struct Memory {
    pub modules: Mutex<BTreeMap<Digest, Bytes>>,
    pub pairs: Mutex<BTreeMap<Bytes, Bytes>>,
    pub applied: Mutex<Vec<Position>>,
    pub brought_up: Mutex<Vec<Position>>,
    pub snapshots: Mutex<Vec<(Position, Bytes, Vec<Pair>)>>,
    /// A sentence that every `apply` fails with.
    pub broken: Mutex<Option<String>>,
}

impl Memory {
    pub fn with_module(module: &Bytes) -> Arc<Memory> {
        let memory = Memory::default();
        memory.modules.lock().unwrap().insert(Digest::of(module), module.clone());
        Arc::new(memory)
    }

    pub fn ports(self: &Arc<Memory>) -> Ports {
        Ports { state: self.clone(), modules: self.clone(), snapshots: self.clone() }
    }
}

impl StateStore for Memory {
    fn get(&self, _log: LogId, key: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(self.pairs.lock().unwrap().get(key).cloned())
    }
    fn scan(&self, _log: LogId, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, String> {
        Ok(scan(&self.pairs.lock().unwrap(), prefix, limit))
    }
    fn apply(&self, _log: LogId, at: Position, changes: &[Change]) -> Result<(), String> {
        if let Some(why) = &*self.broken.lock().unwrap() {
            return Err(why.clone());
        }
        let mut pairs = self.pairs.lock().unwrap();
        for change in changes {
            match &change.value {
                Some(value) => pairs.insert(change.key.clone(), value.clone()),
                None => pairs.remove(&change.key),
            };
        }
        self.applied.lock().unwrap().push(at);
        Ok(())
    }
    fn bring_up(&self, _log: LogId, head: Position) -> Result<(), String> {
        self.brought_up.lock().unwrap().push(head);
        Ok(())
    }
    fn dump<'a>(&'a self, _log: LogId) -> Box<dyn Iterator<Item = Result<Pair, String>> + 'a> {
        Box::new(self.pairs.lock().unwrap().clone().into_iter().map(Ok))
    }
}

impl ModuleStore for Memory {
    fn get(&self, digest: Digest) -> Result<Option<Bytes>, String> {
        Ok(self.modules.lock().unwrap().get(&digest).cloned())
    }
}

impl SnapshotWriter for Memory {
    fn write(
        &self,
        _log: LogId,
        at: Position,
        fold: &[u8],
        state: &mut dyn Iterator<Item = Result<Pair, String>>,
    ) -> Result<(), String> {
        let pairs = state.collect::<Result<Vec<Pair>, String>>()?;
        self.snapshots.lock().unwrap().push((at, Bytes::copy_from_slice(fold), pairs));
        Ok(())
    }
}
