//! Where the mesh meets the outside: sinks put events out, sources bring them in.
//!
//! **Sinks** ([`sink()`]) are heads of actors, like any function: a batch comes in, and the actor's
//! frontier moves once the outside has said yes. They only report what happened: an event that was
//! refused, or an outside that is not there. Pauses, retries and dead letters are the core's.
//!
//! | sink | towards the outside |
//! | --- | --- |
//! | `file` | exactly once: the file's length is committed with the frontier, and the file is cut back to it |
//! | `http` | at least once, each event with its id as `Idempotency-Key` |
//! | `stdout` | at least once |
//!
//! **Sources** ([`Connectors`]) each run on a thread of their own and publish like any client, as
//! the producer `connector` with sequences that begin at 1. What is acknowledged is in the source
//! log, so a connector keeps nothing on disk: the core says where to go on. A panic in one
//! restarts it behind its last acknowledged sequence.
//!
//! Invariants: nothing here decides about time, order or loss inside the mesh; a sink never says
//! yes before the outside did; a file source never skips a line without counting it.

mod feed;
mod file;
mod file_source;
mod host_source;
mod http;
pub mod line;
mod lines;
mod pace;
pub mod rejected;
mod rows;
mod running;
mod sink;
mod stdout;
#[cfg(test)]
mod tests;

pub use feed::{Batch, Counts, Feed, PublishDoor, Published};
pub use pace::{Clock, Stop, Stopped, SystemClock};
pub use running::{Connectors, Ground, Tally};
pub use sink::{SinkPlace, sink};
