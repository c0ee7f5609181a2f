//! What a guest sees of its host: the imports of `protocol/wit`, each with its bound.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::id::Digest;
use dunlin_protocol::limits::{COMMIT_BYTES_MAX, KEY_BYTES_MAX};
use dunlin_protocol::log::record::Observed;
use dunlin_protocol::time::Time;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Result};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use self::bindings::dunlin::function::{host, state, types};
use super::desk::{Ask, Desk, Told};
use super::stop::Stop;
use super::wasi::LastWords;

#[allow(unsafe_code, missing_debug_implementations, missing_docs, reason = "generated from protocol/wit")]
#[allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "generated"
)]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../protocol/wit",
        world: "function",
        imports: { "dunlin:function/state": async | trappable, default: trappable },
        exports: { default: async },
    });
}

/// Calls of `state` and `host` in one call of the function. Beyond: the guest is stopped.
const HOST_CALLS_MAX: u64 = 100_000;
/// A state key: an event's key and as much again behind it, more than once. Beyond: the guest is stopped.
const STATE_KEY_BYTES_MAX: usize = 4 * KEY_BYTES_MAX;
/// Log lines of one call, and the bytes of one. Beyond: dropped, and cut.
const LOG_LINES_MAX: u32 = 100;
const LOG_LINE_BYTES_MAX: usize = 1024;
/// Random bytes of one request. Beyond: the guest is stopped.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Pairs of one scan. Beyond: left out.
const SCAN_PAIRS_MAX: u32 = 10_000;
/// Elements of one table. Beyond: the table does not grow.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Open WASI resources of one instance. Beyond: the guest is stopped.
const RESOURCES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub fuel: u64,
    /// Bytes, over all of an instance's memories.
    pub memory: u64,
    pub call_time_max: Duration,
}

/// One call's side of the sandbox: what wasmtime's store holds.
pub(super) struct Guest {
    pub(super) limits: Limits,
    stage: Arc<str>,
    config: Arc<str>,
    desk: Desk,
    keys: Keys,
    /// Bytes changed, by state key.
    changed: BTreeMap<String, usize>,
    changed_bytes: usize,
    host_calls: u64,
    epochs: u64,
    log_lines: u32,
    now: Time,
    now_seen: bool,
    random: Random,
    memory_used: usize,
    memory_refused: bool,
    words: LastWords,
    wasi: WasiCtx,
    table: ResourceTable,
}

/// The keys of a batch: whose state may be touched. Sorted only for a guest that touches any.
struct Keys {
    listed: Vec<Bytes>,
    sorted: Option<BTreeSet<String>>,
}

impl Keys {
    fn of(batch: &[Invoked]) -> Keys {
        let mut listed: Vec<Bytes> = batch.iter().map(|invoked| invoked.placed.event.key.clone()).collect();
        listed.dedup();
        Keys { listed, sorted: None }
    }

    fn sorted(&mut self) -> &BTreeSet<String> {
        self.sorted.get_or_insert_with(|| self.listed.iter().map(|key| text(key)).collect())
    }
}

/// What a call is about, for its `Guest`.
pub(super) struct Call<'a> {
    pub stage: &'a Arc<str>,
    pub config: &'a Arc<str>,
    pub limits: Limits,
    pub batch: &'a [Invoked],
    pub now: Time,
    pub random: Random,
}

impl Guest {
    pub(super) fn new(call: Call<'_>, desk: Desk) -> Guest {
        let words = LastWords::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Guest {
            limits: call.limits,
            stage: Arc::clone(call.stage),
            config: Arc::clone(call.config),
            desk,
            keys: Keys::of(call.batch),
            changed: BTreeMap::new(),
            changed_bytes: 0,
            host_calls: 0,
            epochs: 0,
            log_lines: 0,
            now: call.now,
            now_seen: false,
            random: call.random,
            memory_used: 0,
            memory_refused: false,
            wasi: super::wasi::nothing(&words),
            words,
            table,
        }
    }

    /// How many epochs the call has seen. The caller learns that it has become a long one.
    pub(super) fn count_epoch(&mut self) -> u64 {
        self.epochs += 1;
        self.desk.set_aside();
        self.epochs
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused
    }

    /// What the guest wrote to its standard error, `: …`, if anything.
    pub(super) fn last_words(&self) -> String {
        self.words.read()
    }

    /// The values taken from outside, for the commit.
    pub(super) fn observed(&self) -> Vec<Observed> {
        let now = self.now_seen.then_some(Observed::Now(self.now));
        let random = self.random.seen.then_some(Observed::Random(self.random.seed));
        now.into_iter().chain(random).collect()
    }

    pub(super) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    fn count_call(&mut self) -> Result<()> {
        self.host_calls += 1;
        if self.host_calls > HOST_CALLS_MAX {
            return Err(Stop::HostCalls { max: HOST_CALLS_MAX }.into());
        }
        Ok(())
    }

    /// The time of the call; taking it is noted.
    pub(super) fn take_now(&mut self) -> Result<Time> {
        self.count_call()?;
        self.now_seen = true;
        Ok(self.now)
    }

    pub(super) fn take_random(&mut self) -> Result<u64> {
        self.count_call()?;
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn take_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.count_call()?;
        if length > RANDOM_BYTES_MAX {
            return Err(Stop::RandomBytes { max: RANDOM_BYTES_MAX }.into());
        }
        let mut bytes = vec![0; usize::try_from(length)?];
        self.random.fill(&mut bytes);
        Ok(bytes)
    }

    /// The rule of `protocol/wit`: a key of the batch, alone or with a `/` behind it.
    fn may_touch(&mut self, key: &str) -> Result<()> {
        self.count_call()?;
        if key.len() > STATE_KEY_BYTES_MAX {
            return Err(Stop::LongKey { bytes: key.len(), max: STATE_KEY_BYTES_MAX }.into());
        }
        let owners = key.match_indices('/').filter_map(|(slash, _)| key.get(..slash));
        let keys = self.keys.sorted();
        if keys.contains(key) || owners.into_iter().any(|owner| keys.contains(owner)) {
            return Ok(());
        }
        Err(Stop::ForeignKey { key: key.chars().take(80).collect() }.into())
    }

    fn count_change(&mut self, key: &str, bytes: usize) -> Result<()> {
        let before = self.changed.insert(key.to_owned(), key.len() + bytes).unwrap_or(0);
        self.changed_bytes = self.changed_bytes - before + key.len() + bytes;
        if self.changed_bytes > COMMIT_BYTES_MAX {
            return Err(Stop::CommitBytes { max: COMMIT_BYTES_MAX }.into());
        }
        Ok(())
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("stage", &self.stage)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl types::Host for Guest {}

impl state::Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        self.may_touch(&key)?;
        match self.desk.ask(Ask::Get { key }).await {
            Told::Value(value) => Ok(value.map(|bytes| bytes.to_vec())),
            told @ (Told::Pairs(_) | Told::Done) => Err(astray(&told)),
        }
    }

    async fn put(&mut self, key: String, value: Vec<u8>) -> Result<()> {
        self.may_touch(&key)?;
        self.count_change(&key, value.len())?;
        self.desk.ask(Ask::Put { key, value }).await;
        Ok(())
    }

    async fn delete(&mut self, key: String) -> Result<()> {
        self.may_touch(&key)?;
        self.count_change(&key, 0)?;
        self.desk.ask(Ask::Delete { key }).await;
        Ok(())
    }

    async fn scan(&mut self, prefix: String, limit: u32) -> Result<Vec<(String, Vec<u8>)>> {
        self.may_touch(&prefix)?;
        let limit = limit.min(SCAN_PAIRS_MAX) as usize;
        match self.desk.ask(Ask::Scan { prefix, limit }).await {
            Told::Pairs(pairs) => {
                Ok(pairs.into_iter().map(|(key, value)| (text(&key), value.to_vec())).collect())
            }
            told @ (Told::Value(_) | Told::Done) => Err(astray(&told)),
        }
    }
}

fn astray(told: &Told) -> wasmtime::Error {
    wasmtime::format_err!("a state request was answered with {told:?}")
}

impl host::Host for Guest {
    fn log(&mut self, level: host::Level, message: String) -> Result<()> {
        self.count_call()?;
        self.log_lines += 1;
        if self.log_lines > LOG_LINES_MAX {
            return Ok(());
        }
        let message = cut(&message, LOG_LINE_BYTES_MAX);
        let stage = &*self.stage;
        match level {
            host::Level::Debug => tracing::debug!(target: "dunlin::guest", stage, "{message}"),
            host::Level::Info => tracing::info!(target: "dunlin::guest", stage, "{message}"),
            host::Level::Warn => tracing::warn!(target: "dunlin::guest", stage, "{message}"),
            host::Level::Error => tracing::error!(target: "dunlin::guest", stage, "{message}"),
        }
        Ok(())
    }

    fn config(&mut self) -> Result<String> {
        self.count_call()?;
        Ok(self.config.to_string())
    }

    fn now(&mut self) -> Result<u64> {
        Ok(self.take_now()?.0)
    }

    fn random(&mut self) -> Result<u64> {
        self.take_random()
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let used = self.memory_used.saturating_sub(current).saturating_add(desired);
        if used as u64 > self.limits.memory {
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// A call's randomness: a stream that grows from one number, which the commit keeps when any of
/// it was used.
pub(super) struct Random {
    seed: u64,
    stream: blake3::OutputReader,
    seen: bool,
}

impl Random {
    /// Differs by node, module, batch and time; the same for the same.
    pub(super) fn of_call(node: &[u8; 32], module: Digest, batch: &[Invoked], now: Time) -> Random {
        let mut hasher = blake3::Hasher::new_keyed(node);
        hasher.update(&module.0).update(&now.0.to_le_bytes()).update(&(batch.len() as u64).to_le_bytes());
        if let Some(first) = batch.first() {
            hasher.update(first.placed.id.to_string().as_bytes());
        }
        let mut seed = [0; 8];
        hasher.finalize_xof().fill(&mut seed);
        let stream = blake3::Hasher::new().update(&seed).finalize_xof();
        Random { seed: u64::from_le_bytes(seed), stream, seen: false }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        self.seen = true;
        self.stream.fill(bytes);
    }
}

/// Keys are text; a byte that is none is shown as such rather than lost.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// At most `bytes_max` bytes of `text`, whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
