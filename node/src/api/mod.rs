//! The door: how clients reach the core, and what it looks like over HTTP.
//!
//! One set of requests and answers (`dunlin_protocol::rpc`), whatever carries them. [`answers`] is
//! where a waiting client meets the core's answer; [`door`] is what is done before the core sees a
//! request (lines are parsed, expressions checked, modules kept); [`http`] spells both as paths
//! and [`json`] is the stable JSON that HTTP and `--json` print.
//!
//! Invariants: nothing but the two health paths is answered without the bearer token; every body
//! has a limit; a client that does not read holds back nobody but itself, because a tail is sent
//! only what its credit covers.

pub mod answers;
pub mod cursor;
pub mod door;
pub mod http;
pub mod json;
mod letters;
mod members;
pub mod metrics;
mod observe;
mod parts;
mod pipelines;
pub mod problem;
pub mod streams;
#[cfg(test)]
mod tests;
