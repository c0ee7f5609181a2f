//! Logs: records, their segments on disk, what recovery may cut and what it must refuse.
//!
//! A log has one writer, grows at its end only and is linked by hashes. Everything here is pure:
//! bytes in, verdict out. `node/src/storage/` and the simulator's disks only move the bytes, so
//! what is torn or flipped in a simulation is the real format.
//!
//! Invariants: a sequence number is never used twice in one epoch; a record's `previous` is the
//! hash of the one before it; only bytes beyond the last synced end may be cut as a torn tail;
//! damage before that end is seen and said, and nothing from it on is served.

pub mod record;
pub mod writer;
