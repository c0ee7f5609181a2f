//! How the storage's threads tell the core what they did: straight into its inbox while there is room, and
//! through a thread of its own where there is none. A thread that waited for the core might wait for ever,
//! since the core waits for it when the node stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use dunlin_protocol::effect::Input;

use super::error::StorageError;
use super::store::start;
use crate::inbox::Inbox;

/// Cheap to clone. What one thread tells is heard in its order.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    inbox: Inbox,
    queue: Sender<Input>,
    /// How many are in the queue: nothing may overtake them.
    queued: Arc<AtomicUsize>,
}

impl Teller {
    pub fn start(inbox: Inbox) -> Result<Teller, StorageError> {
        let (queue, waiting) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        // Not among the threads that `stop` waits for.
        start("log-completions", {
            let (inbox, queued) = (inbox.clone(), queued.clone());
            move || hand_over(&waiting, &inbox, &queued)
        })?;
        Ok(Teller { inbox, queue, queued })
    }

    /// Nobody listens any more when the node stops; what was asked for is on the disk.
    pub fn tell(&self, input: Input) {
        let left = match self.queued.load(Ordering::Acquire) {
            0 => self.inbox.offer(input),
            _ => Some(input),
        };
        if let Some(input) = left {
            self.queued.fetch_add(1, Ordering::AcqRel);
            let _ = self.queue.send(input);
        }
    }
}

fn hand_over(waiting: &Receiver<Input>, inbox: &Inbox, queued: &AtomicUsize) {
    for input in waiting {
        if !inbox.send_blocking(input) {
            return;
        }
        queued.fetch_sub(1, Ordering::AcqRel);
    }
}
