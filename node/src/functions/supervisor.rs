//! The supervisor: hands tasks to workers, and starts a new worker where one panicked.
//!
//! It keeps a copy of each task until the worker has noted it as finished. When a worker panics,
//! the task that it was at is answered for (a call: with an error, to be tried again in halves),
//! and the next worker, which takes over what is staged, does the tasks behind it. Each panic
//! costs one task, so a chain that always panics comes to rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_protocol::effect::{ActorSpec, Again, CallError, Input};
use dunlin_protocol::id::{LogId, Position};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use super::staging::Staged;
use super::worker::{Numbered, Posting, Room, Task, Worker, stage_of};

#[derive(Debug)]
pub(super) enum Order {
    Host { actor: LogId, spec: Arc<ActorSpec>, head: Position },
    Unhost { actor: LogId },
    Task { actor: LogId, task: Task },
}

pub(super) struct Supervisor;

pub(super) struct SupervisorState {
    room: Arc<Room>,
    seats: BTreeMap<LogId, Seat>,
    /// Ends of workers that were told to stop and may still be at their last task.
    leaving: BTreeMap<LogId, oneshot::Receiver<()>>,
}

/// One hosted actor.
struct Seat {
    spec: Arc<ActorSpec>,
    /// Where the committed state stands after the tasks that are finished.
    head: Position,
    staged: Staged,
    worker: ActorRef<Numbered>,
    gone: oneshot::Receiver<()>,
    finished: Arc<AtomicU64>,
    last: u64,
    outstanding: VecDeque<Numbered>,
}

impl Actor for Supervisor {
    type Msg = Order;
    type State = SupervisorState;
    type Arguments = Arc<Room>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Order>,
        room: Arc<Room>,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        Ok(SupervisorState { room, seats: BTreeMap::new(), leaving: BTreeMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Host { actor, spec, head } => {
                state.unhost(actor);
                state.seat(&myself.get_cell(), actor, spec, head, Staged::default(), VecDeque::new()).await?;
                state.hand_over(actor, Task::Host).await;
            }
            Order::Unhost { actor } => state.unhost(actor),
            Order::Task { actor, task } => state.hand_over(actor, task).await,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Order>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(worker, why) => {
                state.on_panic(&myself.get_cell(), worker.get_id(), &why.to_string()).await
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

impl SupervisorState {
    /// A worker for the actor, with these tasks before it.
    async fn seat(
        &mut self,
        myself: &ActorCell,
        actor: LogId,
        spec: Arc<ActorSpec>,
        head: Position,
        staged: Staged,
        tasks: VecDeque<Numbered>,
    ) -> Result<(), ActorProcessingErr> {
        let (gone_sender, gone) = oneshot::channel();
        let finished = Arc::new(AtomicU64::new(0));
        let posting = Posting {
            actor,
            spec: Arc::clone(&spec),
            head,
            staged: staged.clone(),
            finished: Arc::clone(&finished),
            room: Arc::clone(&self.room),
            after: [Some(actor), spec.follows]
                .into_iter()
                .filter_map(|before| self.leaving.remove(&before?))
                .collect(),
            gone: gone_sender,
        };
        let (worker, _) = Worker::spawn_linked(None, Worker, posting, myself.clone()).await?;
        let seat = Seat { spec, head, staged, worker, gone, finished, last: 0, outstanding: VecDeque::new() };
        self.seats.insert(actor, seat);
        for Numbered { task, .. } in tasks {
            self.hand_over(actor, task).await;
        }
        Ok(())
    }

    fn unhost(&mut self, actor: LogId) {
        self.leaving.retain(|_, gone| gone.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        if let Some(seat) = self.seats.remove(&actor) {
            seat.worker.stop(None);
            self.leaving.insert(actor, seat.gone);
        }
    }

    async fn hand_over(&mut self, actor: LogId, task: Task) {
        let Some(seat) = self.seats.get_mut(&actor) else {
            self.refuse(actor, "the function", task, "this actor is not hosted here", Again::Later).await;
            return;
        };
        seat.settle();
        seat.last += 1;
        let number = seat.last;
        seat.outstanding.push_back(Numbered { number, task: task.clone() });
        // A worker that is gone has panicked: its successor finds the task among the outstanding.
        let _gone = seat.worker.cast(Numbered { number, task });
    }

    async fn on_panic(
        &mut self,
        myself: &ActorCell,
        worker: ActorId,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        let found = self.seats.iter().find(|(_, seat)| seat.worker.get_id() == worker);
        let Some(actor) = found.map(|(actor, _)| *actor) else { return Ok(()) };
        let Some(mut seat) = self.seats.remove(&actor) else { return Ok(()) };
        seat.settle();
        let culprit = seat.outstanding.pop_front();
        if let Some(Numbered { task: Task::Apply { position }, .. }) = &culprit {
            // The log has the commit: the next worker brings the state there from the log.
            seat.head = *position;
            seat.staged.clear();
        }
        let stage = stage_of(&seat.spec);
        tracing::error!(%actor, stage, why, "the function host panicked; the actor is hosted again");
        if let Some(Numbered { task, .. }) = culprit {
            let why = format!("the function host panicked: {why}");
            self.refuse(actor, &stage, task, &why, Again::Maybe).await;
        }
        self.seat(myself, actor, seat.spec, seat.head, seat.staged, seat.outstanding).await
    }

    /// Answers a task that nobody will do.
    async fn refuse(&self, actor: LogId, stage: &str, task: Task, why: &str, again: Again) {
        let why = why.to_owned();
        let answer = match task {
            Task::Host => Input::Hosted { actor, outcome: Err(why) },
            Task::Invoke { call, .. } => {
                let error = CallError { stage: stage.to_owned(), reason: why, again };
                Input::Returned { actor, call, outcome: Err(error) }
            }
            Task::LookUp { look, .. } => Input::LookedUp { look, entries: Vec::new() },
            Task::Snapshot { at, .. } => Input::Snapshotted { log: actor, at, outcome: Err(why) },
            Task::Apply { .. } | Task::Discard => return,
        };
        self.room.inbox.send(answer).await;
    }
}

impl Seat {
    /// Forgets the tasks that the worker has finished.
    fn settle(&mut self) {
        let finished = self.finished.load(Ordering::Acquire);
        while let Some(task) = self.outstanding.pop_front_if(|task| task.number <= finished) {
            if let Task::Apply { position } = task.task {
                self.head = position;
            }
        }
    }
}
