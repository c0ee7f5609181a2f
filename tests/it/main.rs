//! What must hold of real processes: nodes are started, restarted, killed, frozen and talked to as
//! a client would. One binary, so that it is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "this is test code: a panic is how it says what is wrong"
)]

mod counting;

mod access;
mod bounds;
mod dead_letters;
mod demo;
mod errors;
mod flow;
mod full_disk;
mod ready;
mod redeploy;
mod restart;
