//! Edges: how a reader follows a log, on its own node or on another, by position.
//!
//! The reader subscribes behind a position and grants credit in bytes; the writer pushes committed
//! slices while there is credit, at most one batch beyond. The reader's position is its
//! deduplication: a batch that does not follow on what was received is dropped, and the
//! subscription is renewed from there. Everything is repeated until it is answered, so a lost or
//! doubled message does no harm. `writer` is the log's side, `reader` the other one. `window` is what the taps
//! of a node share of what one reader brought.

pub mod reader;
pub mod window;
pub mod writer;

#[cfg(test)]
mod tests;
