//! Real nodes for tests: processes of the `dunlin` binary, on ports that the system chooses, with
//! temporary folders.
//!
//! Nothing here sleeps and hopes: whatever takes time is waited for with a deadline ([`wait_for`]).
//! A process is ended by its id, and none outlives the test that started it. What a node logged is
//! printed when its test fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "this is test code: a panic is how it says what is wrong"
)]

mod command;
mod cut;
mod http;
mod mesh;
mod node;
mod program;
mod wait;

pub use command::{Output, Running, dunlin};
pub use cut::Cuttable;
pub use http::{Answer, request, try_request};
pub use mesh::Mesh;
pub use node::{Launch, Node, resident_bytes};
pub use program::{guest, program, repository};
pub use wait::{try_for, wait_for};
