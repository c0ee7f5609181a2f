//! What must hold of real processes: nodes are started, restarted, killed, frozen and talked to as
//! a client would. One binary, so that it is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "this is test code: a panic is how it says what is wrong"
)]

mod beside;
mod chance;
mod counting;
mod feeder;
mod latency;
mod outside;
mod small_disk;
mod stranger;

mod access;
mod bad_guests;
mod bench;
mod bounds;
mod cuts;
mod damage;
mod damaged_facts;
mod dead_letters;
mod demo;
mod elsewhere;
mod errors;
mod fan_out;
mod floods;
mod flow;
mod full_disk;
mod given_up;
mod hostile_clients;
mod hostile_members;
mod kills;
mod lag;
mod learners;
mod lost_tail;
mod old_formats;
mod orphans;
mod ready;
mod redeploy;
mod report;
mod restart;
mod rivals;
mod strangers;
mod tokens;
