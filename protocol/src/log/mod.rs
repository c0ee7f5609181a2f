//! Logs: records, their segments on disk, what recovery may cut and what it must refuse.
//!
//! A log has one writer, grows at its end only and is linked by hashes. Everything here is pure:
//! bytes in, verdict out. `node/src/storage/` and the simulator's disks only move the bytes, so
//! what is torn or flipped in a simulation is the real format.
//!
//! Invariants: a sequence number is never used twice in one epoch; a record's `previous` is the
//! hash of the one before it; only bytes beyond the last synced end may be cut as a torn tail;
//! damage before that end is seen and said, and nothing from it on is served.
//!
//! A log on a disk is four kinds of files: [`segment`]s with the records, one [`note`] of the
//! last synced end, the [`floor`] below which retention may have removed what there was, and
//! [`snapshot`]s of what the records before a position added up to.
//! [`scan`] reads them and says what may stay; [`recovery`] says what is to be mended before anything
//! counts on what was found.

mod bytes_in;
mod cache;
pub mod floor;
pub mod note;
pub mod record;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod snapshot;
pub mod writer;

#[cfg(test)]
mod writer_tests;
