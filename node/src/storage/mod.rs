//! The disk: logs in segment files, keyed state in fjall, modules by digest. It only moves bytes;
//! what they mean, what may be cut and what is damage is decided in `dunlin_protocol::log`.
//!
//! ```text
//! data folder/
//!   format, lock                        what wrote it, and who has it open
//!   logs/<log id>/name                  whose log it is
//!                 00000000000000000001.seg ...   the records; the name is the first one's number
//!                 note                  where it was synced last
//!                 floor                 the first record that retention has left
//!                 00000000000000000900.snap      what the records up to 900 added up to
//!   born/<log id>                       that the log was here, should its folder be taken away
//!   state/                              fjall: keyed state; only a copy, rebuilt when in doubt
//!   modules/<digest>                    WebAssembly components
//! ```
//!
//! One thread writes all logs and syncs them in groups, one reads, and one takes snapshots, so that the
//! driver never waits for a disk; where the core is behind, another one hands it their completions.
//!
//! Invariants: nothing is told `Persisted` before it stands in its durability class; nothing that
//! was synced is ever cut; a snapshot never covers what its log has not synced; no segment goes
//! before a synced snapshot covers it. Only this folder names fjall.

mod births;
mod error;
mod files;
mod format;
mod log_file;
mod log_view;
mod modules;
mod queue;
mod reader;
mod recovery;
mod snapshots;
mod state;
mod store;
mod teller;
#[cfg(test)]
mod tests;
mod writer;

pub use error::StorageError;
pub use modules::ModuleStore;
pub use reader::LogReader;
pub use recovery::Recovery;
pub use snapshots::{SnapshotReader, SnapshotWriter};
pub use state::{Dump, StateStore};
pub use store::Storage;
