//! The engine: one per node. Compiles modules, keeps them, and bounds how many instances live.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dunlin_protocol::id::Digest;
use thiserror::Error;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Enabled, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::cache::Cache;
use super::guest::bindings::{Function, FunctionPre};
use super::guest::{Guest, TABLE_ELEMENTS_MAX};
use super::wasi;

/// How often running guests are looked at: for their time limit, and for leave to hold a thread that others
/// need.
const EPOCH: Duration = Duration::from_millis(10);
/// After so many epochs without a guest nobody looks any more, until the next one begins.
const IDLE_EPOCHS: u32 = 20;
/// How often the one who looks makes sure that there is still an engine.
const ENGINE_GONE: Duration = Duration::from_secs(1);
/// Stack of a guest, and of the host calls on top of it. Beyond the first: the guest is stopped.
const GUEST_STACK_BYTES: usize = 512 << 10;
const STACK_BYTES: usize = 1 << 20;
/// What one component may be made of. Beyond: the module is refused.
const CORES_PER_COMPONENT: u32 = 64;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 32;
const CORE_BYTES_MAX: usize = 1 << 20;
const COMPONENT_BYTES_MAX: usize = 4 << 20;
/// How much of an engine's own words a sentence repeats, in characters.
const WHY_CHARS_MAX: usize = 300;
/// Linear memory that an instance leaves behind warm for the next one in its place.
const WARM_BYTES: usize = 256 << 10;
const WARM_TABLE_BYTES: usize = 64 << 10;

/// A module that cannot be run. Nothing was changed.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("the WebAssembly engine cannot start on this machine: {0}")]
    Start(String),
    #[error(
        "the module '{0}' was never uploaded: a revision names modules by digest; deploy the pipeline again"
    )]
    NotUploaded(String),
    #[error("the module {0} is not on this node; deploy the pipeline again")]
    Missing(Digest),
    #[error("the module {digest} cannot be read: {why}")]
    Unreadable { digest: Digest, why: String },
    #[error(
        "the module {digest} does not have the digest that it is stored under; deploy the pipeline again"
    )]
    Corrupt { digest: Digest },
    #[error("the module {0} is no WebAssembly component; build it for wasm32-wasip2 (see protocol/wit)")]
    NoComponent(Digest),
    #[error("the module {digest} does not compile: {why}")]
    Compile { digest: Digest, why: String },
    #[error(
        "the module {digest} needs '{import}', which functions are not given; build it against protocol/wit"
    )]
    ForeignImport { digest: Digest, import: String },
    #[error("the module {digest} does not fit the world 'function' of protocol/wit: {why}")]
    WrongWorld { digest: Digest, why: String },
}

#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Where compiled modules are kept; none: they are compiled anew by every process.
    pub cache: Option<PathBuf>,
    /// Instances at once. Beyond: calls wait.
    pub instances: u32,
    /// Wall-clock time of one call. Beyond: the guest is stopped.
    pub call_time_max: Duration,
    /// What all randomness of guests grows from: unlike on every node, never shown.
    pub seed: [u8; 32],
}

impl EngineSettings {
    /// As many instances as cores, twenty seconds a call.
    pub fn new(cache: Option<PathBuf>, seed: [u8; 32]) -> EngineSettings {
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get() as u32);
        EngineSettings { cache, instances: cores.max(2), call_time_max: Duration::from_secs(20), seed }
    }
}

/// Cheap to clone: all clones are one engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
    pool: Arc<Pool>,
    cache: Option<Cache>,
    /// Modules in use. Also held while compiling, so that nothing is compiled twice.
    loaded: Mutex<BTreeMap<Digest, Weak<Module>>>,
    call_time_max: Duration,
    seed: [u8; 32],
}

/// A compiled module, linked and ready for instances.
pub(super) struct Module {
    pub(super) digest: Digest,
    pub(super) pre: FunctionPre<Guest>,
}

impl Engine {
    pub fn new(settings: EngineSettings) -> Result<Engine, EngineError> {
        let start = |error: wasmtime::Error| EngineError::Start(format!("{error:#}"));
        let engine = wasmtime::Engine::new(&config(settings.instances.max(1))).map_err(start)?;
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker).map_err(start)?;
        Function::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest).map_err(start)?;
        let cache = match &settings.cache {
            None => None,
            Some(folder) => Some(Cache::open(folder, &engine).map_err(|error| {
                EngineError::Start(format!("the folder {} cannot be used: {error}", folder.display()))
            })?),
        };
        let weak = engine.weak();
        let pool = Arc::new(Pool::new(settings.instances.max(1)));
        let ticked = Arc::clone(&pool);
        std::thread::Builder::new()
            .name("guest-epochs".to_owned())
            .spawn(move || tick(&weak, &ticked))
            .map_err(|error| EngineError::Start(error.to_string()))?;
        Ok(Engine(Arc::new(Inner {
            engine,
            linker,
            pool,
            cache,
            loaded: Mutex::new(BTreeMap::new()),
            call_time_max: settings.call_time_max,
            seed: settings.seed,
        })))
    }

    /// The module, compiled; `bytes` is asked for only when it is neither in use nor in the cache.
    pub(super) fn load(
        &self,
        digest: Digest,
        bytes: impl FnOnce() -> Result<Vec<u8>, EngineError>,
    ) -> Result<Arc<Module>, EngineError> {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&digest).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let cached = self.0.cache.as_ref().and_then(|cache| cache.get(&self.0.engine, digest));
        let component = match cached {
            Some(component) => component,
            None => self.compile(digest, &bytes()?)?,
        };
        self.check_imports(digest, &component)?;
        let wrong = |error: wasmtime::Error| EngineError::WrongWorld { digest, why: one_line(&error) };
        let pre = self.0.linker.instantiate_pre(&component).map_err(wrong)?;
        let module = Arc::new(Module { digest, pre: FunctionPre::new(pre).map_err(wrong)? });
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(digest, Arc::downgrade(&module));
        Ok(module)
    }

    /// Whether these bytes are a function that can run here, compiled and linked as for the first
    /// call: what passes is in the cache. May take seconds.
    pub fn check(&self, bytes: &[u8]) -> Result<(), EngineError> {
        self.load(Digest::of(bytes), || Ok(bytes.to_vec())).map(drop)
    }

    /// The module is not needed any more; actors that run it go on.
    pub fn forget(&self, digest: Digest) {
        if let Some(cache) = &self.0.cache {
            cache.remove(digest);
        }
    }

    fn compile(&self, digest: Digest, bytes: &[u8]) -> Result<Component, EngineError> {
        if Digest::of(bytes) != digest {
            return Err(EngineError::Corrupt { digest });
        }
        // A component's version field is 0x0d with layer 1; a core module's layer is 0.
        if bytes.get(..4) != Some(b"\0asm") || bytes.get(6..8) != Some(&[1, 0]) {
            return Err(EngineError::NoComponent(digest));
        }
        let component = Component::from_binary(&self.0.engine, bytes)
            .map_err(|error| EngineError::Compile { digest, why: one_line(&error) })?;
        if let Some(cache) = &self.0.cache {
            cache.put(digest, &component);
        }
        Ok(component)
    }

    fn check_imports(&self, digest: Digest, component: &Component) -> Result<(), EngineError> {
        let known = ["dunlin:function/", "wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/"];
        let also_known = ["wasi:random/", "wasi:sockets/"];
        for (import, _) in component.component_type().imports(&self.0.engine) {
            if !known.iter().chain(&also_known).any(|prefix| import.starts_with(prefix)) {
                return Err(EngineError::ForeignImport { digest, import: import.to_owned() });
            }
        }
        Ok(())
    }

    /// Leave to hold one instance; waits while all are taken.
    pub(super) fn permit(&self) -> Permit<'_> {
        self.0.pool.take()
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.engine
    }

    pub(super) fn call_time_max(&self) -> Duration {
        self.0.call_time_max
    }

    /// The time limit in epochs: at least one whole one.
    pub(super) fn call_epochs_max(&self) -> u64 {
        let epochs = self.0.call_time_max.as_millis() / EPOCH.as_millis();
        u64::try_from(epochs).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn seed(&self) -> &[u8; 32] {
        &self.0.seed
    }

    #[cfg(test)]
    pub(super) fn cache_path(&self, digest: Digest) -> Option<PathBuf> {
        self.0.cache.as_ref().map(|cache| cache.path(digest))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Module").field(&self.digest).finish()
    }
}

/// An error as part of a sentence: some of wasmtime's stand on several lines, and are long.
fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(WHY_CHARS_MAX).collect()
}

/// The same code does the same everywhere: NaNs have one form, what differs by machine is off.
fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORES_PER_COMPONENT))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(instances)
        .max_core_instances_per_component(CORES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_core_instance_size(CORE_BYTES_MAX)
        .max_component_instance_size(COMPONENT_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(WARM_BYTES)
        .table_keep_resident(WARM_TABLE_BYTES)
        // Of the warm bytes only those pages are made as new that a guest wrote, where the system can tell.
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(STACK_BYTES);
    config
}

/// Ends when the engine is gone.
fn tick(engine: &EngineWeak, pool: &Pool) {
    let mut idle = 0;
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        std::thread::sleep(EPOCH);
        let mut places = pool.places();
        idle = if places.free == places.all { idle + 1 } else { 0 };
        if idle > IDLE_EPOCHS {
            places.ticking = false;
            let waited = pool.begun.wait_timeout_while(places, ENGINE_GONE, |places| !places.ticking);
            let (mut places, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if places.ticking {
                idle = 0;
            }
            places.ticking = true;
        }
    }
}

/// Counts free places. A full pool is a wait, not an error.
#[derive(Debug)]
struct Pool {
    places: Mutex<Places>,
    freed: Condvar,
    /// A guest begins while nobody counts epochs.
    begun: Condvar,
}

#[derive(Debug)]
struct Places {
    all: u32,
    free: u32,
    ticking: bool,
}

impl Pool {
    fn new(all: u32) -> Pool {
        let places = Mutex::new(Places { all, free: all, ticking: true });
        Pool { places, freed: Condvar::new(), begun: Condvar::new() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Permit<'_> {
        let places = self.freed.wait_while(self.places(), |places| places.free == 0);
        let mut places = places.unwrap_or_else(PoisonError::into_inner);
        places.free -= 1;
        if !std::mem::replace(&mut places.ticking, true) {
            self.begun.notify_one();
        }
        Permit(self)
    }
}

/// One place in the pool, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Pool);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.places().free += 1;
        self.0.freed.notify_one();
    }
}
