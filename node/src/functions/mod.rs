//! Functions at work: the rooms where actors run, and the sandbox that guests run in.
//!
//! An actor of the mesh has one **worker** here, which owns its chain (the head and the steps
//! fused behind it) and does its calls one after another. A **supervisor** routes the driver's
//! effects to the workers and hosts an actor anew when its worker panics. What calls change is
//! **staged** over the committed state until the core says that the commit stands.
//!
//! A guest is a WebAssembly component (`protocol/wit`). It gets a fresh instance per call, so
//! nothing but its keyed state outlives a call, and it can use up nothing: instructions (fuel),
//! time (epochs), memory, tables, host calls, log lines, and the bytes that it emits and changes
//! are bounded, each with its own sentence. From WASI it gets what runtimes need to start, and
//! nothing behind it: no files, no environment, no sockets; time stands still during a call and
//! randomness grows from one seed, both recorded in the commit.
//!
//! Beside it stand `bare`, the same guest in wasmtime alone, and `trial`, which lets the bench compare the two.
//!
//! Invariants: this is the only folder that names wasmtime. A guest never sees another actor's
//! state, nor keys whose events it was not given. A failed call leaves nothing behind.

mod bare;
mod cache;
mod desk;
pub mod engine;
mod guest;
pub mod host;
mod ids;
mod pace;
pub mod ports;
pub mod runner;
mod staging;
mod stop;
mod supervisor;
#[cfg(test)]
mod tests;
pub mod trial;
mod wasi;
pub mod wasm;
mod worker;

pub use engine::{Engine, EngineError, EngineSettings};
pub use host::{Functions, FunctionsSettings};
pub use runner::HeadFactory;

/// The demo's function, `examples/functions/clean`, built together with this crate.
pub const CLEAN_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clean.wasm"));

/// `examples/functions/relay`: gives out what comes in. What the bench puts between two nodes.
pub const RELAY_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/relay.wasm"));
