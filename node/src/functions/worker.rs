//! The worker of one actor: its chain, its staged state, its calls one after another.
//!
//! What blocks (a call, a compilation, the store) runs on threads that may block, at most as many
//! at once as there are cores; the worker waits for it without holding a thread. A panic in there
//! becomes the worker's own: the supervisor answers for it and starts the next one.
//!
//! A call that will be over sooner than a thread could be woken for it runs where it is (`pace`); a guest
//! that turns out to take longer gives the thread free at its first epoch (`desk`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use dunlin_operators::chain::ChainRunner;
use dunlin_protocol::effect::{ActorSpec, Again, CallError, CallId, Input, Invoked, LookId, Outcome};
use dunlin_protocol::id::{LogId, Position};
use dunlin_protocol::limits::COMMIT_BYTES_MAX;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::plan::Head;
use dunlin_protocol::time::Time;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, oneshot};

use super::engine::Engine;
use super::pace::Pace;
use super::ports::{Pair, Ports, StateStore};
use super::runner::{self, HeadFactory};
use super::staging::{CallState, Staged, listed};
use crate::crash::{self, Point};
use crate::inbox::Inbox;

/// Commits that changed nothing and are behind the store's position: it follows with the next change, or
/// with this many. As many records are read again when the actor is hosted the next time.
const UNAPPLIED_MAX: u32 = 256;

/// What all workers of a node share.
#[derive(Debug)]
pub(super) struct Room {
    pub ports: Ports,
    pub heads: HeadFactory,
    pub engine: Engine,
    pub inbox: Inbox,
    /// One per thread that may block for functions at once.
    pub permits: Arc<Semaphore>,
    /// The same for sinks.
    pub sink_permits: Arc<Semaphore>,
}

/// What a worker is asked to do. Cheap to clone: the supervisor keeps a copy until it is done.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Become ready and say so.
    Host,
    Invoke {
        call: CallId,
        batch: Arc<Vec<Invoked>>,
        now: Time,
    },
    Apply {
        position: Position,
    },
    Discard,
    LookUp {
        look: LookId,
        key: Option<Bytes>,
        limit: u32,
    },
    Snapshot {
        at: Position,
        fold: Bytes,
    },
}

/// A task with its number: the worker notes the number of the last one that it finished.
#[derive(Debug)]
pub(super) struct Numbered {
    pub number: u64,
    pub task: Task,
}

/// What the next worker of an actor begins with.
#[derive(Debug)]
pub(super) struct Posting {
    pub actor: LogId,
    pub spec: Arc<ActorSpec>,
    /// Where the committed state is to stand.
    pub head: Position,
    pub staged: Staged,
    pub finished: Arc<AtomicU64>,
    pub room: Arc<Room>,
    /// The ends of earlier workers that may still be at their last task: of this actor, and of the one
    /// whose state it takes over.
    pub after: Vec<oneshot::Receiver<()>>,
    /// Never used, only dropped: that tells the next one that this worker is gone.
    #[expect(dead_code, reason = "its end is its use")]
    pub gone: oneshot::Sender<()>,
}

pub(super) struct Worker;

pub(super) struct WorkerState {
    posting: Posting,
    /// None: the store is not known to stand at `head`, or there is no runner. Hosting comes first.
    runner: Option<ChainRunner>,
    pace: Pace,
    /// Commits without changes behind which the store's position stays.
    unapplied: u32,
}

impl Actor for Worker {
    type Msg = Numbered;
    type State = WorkerState;
    type Arguments = Posting;

    async fn pre_start(
        &self,
        _myself: ActorRef<Numbered>,
        posting: Posting,
    ) -> Result<WorkerState, ActorProcessingErr> {
        Ok(WorkerState { posting, runner: None, pace: Pace::default(), unapplied: 0 })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Numbered>,
        Numbered { number, task }: Numbered,
        state: &mut WorkerState,
    ) -> Result<(), ActorProcessingErr> {
        for earlier in std::mem::take(&mut state.posting.after) {
            // An error says that the earlier worker is gone, which is what is waited for.
            let _gone = earlier.await;
        }
        if let Some(answer) = state.on_task(task).await {
            state.posting.room.inbox.send(answer).await;
        }
        state.posting.finished.store(number, Ordering::Release);
        Ok(())
    }
}

impl WorkerState {
    /// Whether a call of so many events is over before another thread would have begun it. A sink waits for
    /// the outside, whatever its last calls took.
    fn runs_here(&self, events: usize) -> bool {
        match self.posting.spec.chain.head {
            Head::Sink { .. } => false,
            Head::None
            | Head::Pass
            | Head::Wasm { .. }
            | Head::Learn { .. }
            | Head::Forecast { .. }
            | Head::Anomaly { .. } => self.pace.is_quick(events),
        }
    }

    /// Whose places this actor's work takes.
    fn permits(&self) -> Arc<Semaphore> {
        match self.posting.spec.chain.head {
            Head::Sink { .. } => Arc::clone(&self.posting.room.sink_permits),
            Head::None
            | Head::Pass
            | Head::Wasm { .. }
            | Head::Learn { .. }
            | Head::Forecast { .. }
            | Head::Anomaly { .. } => Arc::clone(&self.posting.room.permits),
        }
    }

    async fn on_task(&mut self, task: Task) -> Option<Input> {
        let actor = self.posting.actor;
        match task {
            Task::Host => Some(Input::Hosted { actor, outcome: self.host().await }),
            Task::Invoke { call, batch, now } => {
                Some(Input::Returned { actor, call, outcome: self.on_invoke(batch, now).await })
            }
            Task::Apply { position } => {
                self.on_apply(position).await;
                None
            }
            Task::Discard => {
                self.posting.staged.clear();
                if let Some(runner) = &mut self.runner {
                    runner.forget();
                }
                None
            }
            Task::LookUp { look, key, limit } => {
                Some(Input::LookedUp { look, entries: self.on_look_up(key, limit).await })
            }
            Task::Snapshot { at, fold } => {
                Some(Input::Snapshotted { log: actor, at, outcome: self.on_snapshot(at, fold).await })
            }
        }
    }

    /// The store stands at `head` and the chain can run.
    async fn host(&mut self) -> Result<(), String> {
        let (actor, head) = (self.posting.actor, self.posting.head);
        let (room, spec) = (Arc::clone(&self.posting.room), Arc::clone(&self.posting.spec));
        let runner = blocking(&self.permits(), move || {
            room.ports.state.bring_up(actor, head)?;
            runner::runner(&spec, &room.engine, &*room.ports.modules, &room.heads)
        })
        .await?;
        self.runner = Some(runner);
        Ok(())
    }

    async fn on_invoke(&mut self, batch: Arc<Vec<Invoked>>, now: Time) -> Result<Outcome, CallError> {
        let stage = stage_of(&self.posting.spec);
        if self.runner.is_none()
            && let Err(why) = self.host().await
        {
            let reason = format!("the function cannot be hosted at present: {why}");
            return Err(CallError { stage, reason, again: Again::Later });
        }
        let Some(mut runner) = self.runner.take() else {
            let reason = "the function is not hosted".to_owned();
            return Err(CallError { stage, reason, again: Again::Later });
        };
        let staged = self.posting.staged.clone();
        let mut state =
            CallState::new(self.posting.actor, Arc::clone(&self.posting.room.ports.state), staged.clone());
        crash::at(Point::BeforeInvoke);
        let here = self.runs_here(batch.len());
        let events = batch.len();
        let call = move || {
            let begun = Instant::now();
            let outcome = runner.run(&batch, now, &mut state);
            let outcome = outcome.and_then(|mut outcome| {
                let changes = state.finish().map_err(|why| {
                    let reason = format!("the keyed state cannot be read: {why}");
                    CallError { stage: stage.clone(), reason, again: Again::Later }
                })?;
                outcome.changes = listed(&changes);
                check_weight(&stage, &outcome)?;
                staged.add(changes);
                Ok(outcome)
            });
            if outcome.is_err() {
                runner.forget();
            }
            (runner, outcome, begun.elapsed())
        };
        let permits = self.permits();
        let (runner, outcome, took) = if here {
            let _permit = permits.acquire_owned().await;
            call()
        } else {
            blocking(&permits, call).await
        };
        crash::at(Point::AfterInvoke);
        self.pace.note(events, took);
        self.runner = Some(runner);
        outcome
    }

    async fn on_apply(&mut self, position: Position) {
        let actor = self.posting.actor;
        let changes = self.posting.staged.changes();
        let room = Arc::clone(&self.posting.room);
        self.posting.head = position;
        crash::at(Point::BeforeApply);
        if changes.is_empty() && self.unapplied < UNAPPLIED_MAX {
            self.unapplied += 1;
            crash::at(Point::AfterApply);
            return;
        }
        self.unapplied = 0;
        let applied =
            blocking(&self.permits(), move || room.ports.state.apply(actor, position, &changes)).await;
        crash::at(Point::AfterApply);
        self.posting.staged.clear();
        if let Err(why) = applied {
            // The log has the commit: hosting again takes it from there.
            tracing::error!(%actor, why, "a commit did not reach the keyed state; it is rebuilt from the log");
            self.runner = None;
        }
    }

    async fn on_look_up(&mut self, key: Option<Bytes>, limit: u32) -> Vec<(Bytes, Bytes)> {
        let (actor, room) = (self.posting.actor, Arc::clone(&self.posting.room));
        let found = blocking(&self.permits(), move || match key {
            Some(key) => {
                let value = room.ports.state.get(actor, &key)?;
                Ok(value.map(|value| (key, value)).into_iter().collect())
            }
            None => scan_plain(&*room.ports.state, actor, limit as usize),
        })
        .await;
        found.unwrap_or_else(|why: String| {
            tracing::error!(%actor, why, "keyed state cannot be looked up");
            Vec::new()
        })
    }

    async fn on_snapshot(&mut self, at: Position, fold: Bytes) -> Result<(), String> {
        if self.runner.is_none() {
            self.host().await?;
        }
        let (actor, head) = (self.posting.actor, self.posting.head);
        if head != at {
            return Err(format!(
                "the keyed state stands at {} and not at {}, so no snapshot was taken",
                head.seq.0, at.seq.0
            ));
        }
        let room = Arc::clone(&self.posting.room);
        let behind = std::mem::take(&mut self.unapplied) > 0;
        blocking(&self.permits(), move || {
            if behind {
                room.ports.state.apply(actor, at, &[])?;
            }
            let mut state = room.ports.state.dump(actor);
            room.ports.snapshots.write(actor, at, &fold, &mut *state)
        })
        .await
    }
}

/// All keys in order, but for those that begin with a zero byte: they are the function's own.
fn scan_plain(store: &dyn StateStore, actor: LogId, limit: usize) -> Result<Vec<Pair>, String> {
    let empty = store.get(actor, &[])?.map(|value| (Bytes::new(), value));
    let mut pairs: Vec<Pair> = empty.into_iter().take(limit).collect();
    for first in 1..=u8::MAX {
        if pairs.len() >= limit {
            break;
        }
        pairs.extend(store.scan(actor, &[first], limit - pairs.len())?);
    }
    Ok(pairs)
}

/// Runs `work` on a thread that may block, when there is one free.
async fn blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let permit = Arc::clone(permits).acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    match done.await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this worker with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// The name that users know an actor's function by.
pub(super) fn stage_of(spec: &ActorSpec) -> String {
    match &spec.name {
        LogName::Actor { unit, .. } => unit.name.to_string(),
        LogName::Catalog(_) => "catalog".to_owned(),
    }
}

fn check_weight(stage: &str, outcome: &Outcome) -> Result<(), CallError> {
    let emitted: usize = outcome.emitted.iter().map(|emitted| emitted.event.weight()).sum();
    let changed = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let changes: usize =
        outcome.changes.iter().map(|change| change.key.len() + changed(&change.value) + 8).sum();
    if emitted + changes <= COMMIT_BYTES_MAX {
        return Ok(());
    }
    let reason = format!(
        "the call emitted and changed {} bytes, and a commit holds {COMMIT_BYTES_MAX}; emit less per event",
        emitted + changes
    );
    Err(CallError { stage: stage.to_owned(), reason, again: Again::Maybe })
}
