//! The driver's door to the functions. Nothing here waits; answers come through the inbox.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_protocol::effect::{ActorSpec, CallId, Invoked, LookId};
use dunlin_protocol::id::{LogId, Position};
use dunlin_protocol::time::Time;
use ractor::{Actor, ActorRef};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::engine::Engine;
use super::ports::Ports;
use super::runner::HeadFactory;
use super::supervisor::{Order, Supervisor};
use super::worker::{Room, Task};
use crate::inbox::Inbox;

/// The functions could not be started. Nothing runs.
#[derive(Debug, Error)]
pub enum FunctionsError {
    #[error("the function host did not start: {0}")]
    Spawn(String),
}

#[derive(Debug, Clone)]
pub struct FunctionsSettings {
    pub engine: Engine,
    /// Calls that run at once; further ones wait.
    pub calls: usize,
    /// The same for sinks: they wait for the outside and not for a core, so they have places of their
    /// own, and one that is not answered takes none from a function.
    pub sink_calls: usize,
}

/// Sinks at work at once. Beyond: they wait for one another.
const SINK_CALLS_MAX: usize = 64;

impl FunctionsSettings {
    /// One call per core.
    pub fn new(engine: Engine) -> FunctionsSettings {
        let calls = std::thread::available_parallelism().map_or(2, usize::from);
        FunctionsSettings { engine, calls, sink_calls: SINK_CALLS_MAX }
    }
}

/// All functions of a node. Its queues are bounded by the core's own rules: one call and one
/// commit per actor, and no more look-ups than open requests.
#[derive(Debug)]
pub struct Functions {
    supervisor: ActorRef<Order>,
    ended: JoinHandle<()>,
}

impl Functions {
    pub async fn start(
        settings: FunctionsSettings,
        ports: Ports,
        heads: HeadFactory,
        inbox: Inbox,
    ) -> Result<Functions, FunctionsError> {
        let permits = Arc::new(Semaphore::new(settings.calls.max(1)));
        let sink_permits = Arc::new(Semaphore::new(settings.sink_calls.max(1)));
        let engine = settings.engine;
        let room = Arc::new(Room { ports, heads, engine, inbox, permits, sink_permits });
        let (supervisor, ended) = Supervisor::spawn(None, Supervisor, room)
            .await
            .map_err(|error| FunctionsError::Spawn(error.to_string()))?;
        Ok(Functions { supervisor, ended })
    }

    /// `Hosted` follows. An actor that is hosted already is hosted anew.
    pub fn host(&self, actor: LogId, spec: Arc<ActorSpec>, head: Position) {
        self.order(Order::Host { actor, spec, head });
    }

    /// A call that is under way still ends; the core knows that it no longer counts.
    pub fn unhost(&self, actor: LogId) {
        self.order(Order::Unhost { actor });
    }

    /// `Returned` follows.
    pub fn invoke(&self, actor: LogId, call: CallId, batch: Arc<Vec<Invoked>>, now: Time) {
        self.task(actor, Task::Invoke { call, batch, now });
    }

    /// What is staged enters the committed state, which then stands at `position`.
    pub fn apply(&self, actor: LogId, position: Position) {
        self.task(actor, Task::Apply { position });
    }

    /// What is staged goes.
    pub fn discard(&self, actor: LogId) {
        self.task(actor, Task::Discard);
    }

    /// `LookedUp` follows: committed state, one key or all in order from the first.
    pub fn look_up(&self, actor: LogId, look: LookId, key: Option<Bytes>, limit: u32) {
        self.task(actor, Task::LookUp { look, key, limit });
    }

    /// `Snapshotted` follows: the fold and the actor's keyed state, exactly at `at`.
    pub fn snapshot(&self, actor: LogId, at: Position, fold: Bytes) {
        self.task(actor, Task::Snapshot { at, fold });
    }

    /// Ends the workers; calls under way count for nothing.
    pub async fn stop(self) {
        self.supervisor.stop(None);
        if let Err(error) = self.ended.await {
            tracing::error!(%error, "the function host ended badly");
        }
    }

    fn task(&self, actor: LogId, task: Task) {
        self.order(Order::Task { actor, task });
    }

    fn order(&self, order: Order) {
        if let Err(error) = self.supervisor.cast(order) {
            // Only after `stop`: the node is going down and no answer is waited for.
            tracing::debug!(%error, "the function host has stopped");
        }
    }
}
