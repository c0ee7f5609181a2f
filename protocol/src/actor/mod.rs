//! Actors: one unit of a pipeline at work on one share. What they read, commit, park and emit.

pub mod fold;
