//! The one way into the core: every room sends `Input`s here, only the driver takes them out.
//!
//! The channel is bounded: a room that is faster than the core waits here, and the driver never
//! waits for a room (its own channels to the rooms are bounded by the core's rules: one call per
//! actor, `UNPERSISTED_BYTES_MAX` per log, credit per edge).

use dunlin_protocol::effect::Input;
use tokio::sync::mpsc;

/// Inputs that may wait for the core. Beyond: senders wait.
const INPUTS_MAX: usize = 4096;

#[derive(Debug, Clone)]
pub struct Inbox(mpsc::Sender<Input>);

impl Inbox {
    pub fn new() -> (Inbox, mpsc::Receiver<Input>) {
        let (sender, receiver) = mpsc::channel(INPUTS_MAX);
        (Inbox(sender), receiver)
    }

    /// From async code. False when the node is stopping and nobody listens any more.
    pub async fn send(&self, input: Input) -> bool {
        self.0.send(input).await.is_ok()
    }

    /// From a thread of its own; panics inside an async runtime.
    pub fn send_blocking(&self, input: Input) -> bool {
        self.0.blocking_send(input).is_ok()
    }
}
