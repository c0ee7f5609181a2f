//! Actors: one unit of a pipeline at work on one share.
//!
//! `machine` is the actor itself, `upstream` a log that it reads, `work` one commit in the making,
//! `letters` what becomes of its dead letters, `fold` what its log makes it remember. None of them knows
//! the disk, the network or the function: they return what they want done. Invariants: at most one commit under way per actor; memory changes only by a persisted
//! commit; an event is in a commit's frontier exactly when its effects (or its parking, or its
//! death) are in the same commit.

pub mod fold;
pub mod letters;
pub mod machine;
pub mod source;
pub mod upstream;
pub mod work;

#[cfg(test)]
mod tests;
