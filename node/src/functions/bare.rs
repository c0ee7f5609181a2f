//! A guest in wasmtime alone: what a call costs when nothing stands around it. The bench sets our own call
//! beside it.
//!
//! wasmtime's own settings, one instance for all calls, no fuel, no time limit, no limits on memory, and
//! imports that do nothing. Nothing of a node runs guests this way.

use dunlin_protocol::effect::Invoked;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Config, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use self::bindings::Function;
use self::bindings::dunlin::function::{host, state, types};
use super::guest::text;
use super::ids::Ids;

#[allow(unsafe_code, missing_debug_implementations, missing_docs, reason = "generated from protocol/wit")]
#[allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "generated"
)]
mod bindings {
    wasmtime::component::bindgen!({ path: "../protocol/wit", world: "function" });
}

/// One instance, ready to be called.
pub(super) struct Bare {
    store: Store<Imports>,
    function: Function,
}

struct Imports {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Bare {
    /// Compiles the guest: may take seconds.
    pub(super) fn new(guest: &[u8]) -> wasmtime::Result<Bare> {
        let engine = wasmtime::Engine::new(&Config::new())?;
        let component = Component::from_binary(&engine, guest)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        Function::add_to_linker::<Imports, HasSelf<Imports>>(&mut linker, |imports| imports)?;
        let imports = Imports { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&engine, imports);
        let function = Function::instantiate(&mut store, &component, &linker)?;
        Ok(Bare { store, function })
    }

    /// One call, from the batch as a node holds it; answers with how many events came out.
    pub(super) fn call(&mut self, batch: &[Invoked]) -> wasmtime::Result<usize> {
        let mut ids = Ids::default();
        let events: Vec<types::Event> = batch.iter().map(|invoked| event(invoked, &mut ids)).collect();
        match self.function.call_handle(&mut self.store, &events)? {
            Ok(outputs) => Ok(outputs.len()),
            Err(types::Failure::GiveUp(why)) => Err(wasmtime::Error::msg(why)),
            Err(types::Failure::RetryAfter(retry)) => Err(wasmtime::Error::msg(retry.reason)),
        }
    }
}

fn event(invoked: &Invoked, ids: &mut Ids) -> types::Event {
    let event = &invoked.placed.event;
    types::Event {
        id: ids.text(invoked.placed.id),
        input: u32::from(invoked.input),
        key: text(&event.key),
        time_ms: event.time.0,
        headers: Vec::new(),
        payload: event.payload.to_vec(),
    }
}

impl WasiView for Imports {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for Imports {}

impl state::Host for Imports {
    fn get(&mut self, _key: String) -> Option<Vec<u8>> {
        None
    }
    fn put(&mut self, _key: String, _value: Vec<u8>) {}
    fn delete(&mut self, _key: String) {}
    fn scan(&mut self, _prefix: String, _limit: u32) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
}

impl host::Host for Imports {
    fn log(&mut self, _level: host::Level, _message: String) {}
    fn config(&mut self) -> String {
        "{}".to_string()
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u64 {
        0
    }
}
