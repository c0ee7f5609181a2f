//! Where a client's request meets the core's answer.
//!
//! A request gets a number and goes into the inbox; the driver hands answers to [`Doors::answer`],
//! which never waits. How much a tail may be sent is the core's affair: it sends what the client's
//! credit covers, and credit is granted here as the client really takes events.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::limits::REQUESTS_MAX;
use dunlin_protocol::rpc::{Fault, FaultKind, Request, Response};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::inbox::Inbox;

/// Answers of one call that may wait for its client. A tail's credit in bytes ends the core's
/// sending long before; beyond, the call is cut off.
const ANSWERS_WAITING_MAX: usize = 16_384;
/// A request with one answer fails after this long.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A deploy waits for modules to reach the nodes that need them.
const DEPLOY_DEADLINE: Duration = Duration::from_secs(120);

/// The meeting place. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Doors {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    inbox: Inbox,
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// Set when the node stops: nothing is let in any more.
    closed: bool,
    calls: BTreeMap<RequestId, mpsc::Sender<(Response, bool)>>,
}

impl Doors {
    pub fn new(inbox: Inbox) -> Doors {
        Doors { inner: Arc::new(Inner { inbox, next: AtomicU64::new(1), open: Mutex::default() }) }
    }

    /// Asks the core. `Busy` when too many requests are open, `Unavailable` when the node stops.
    pub async fn call(&self, request: Request) -> Result<CallHandle, Fault> {
        let id = RequestId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        {
            let mut open = self.inner.open();
            if open.closed {
                return Err(stopping());
            }
            if open.calls.len() >= REQUESTS_MAX {
                return Err(Fault {
                    kind: FaultKind::Busy { retry_after_ms: 1000 },
                    detail: format!("{REQUESTS_MAX} requests are open on this node: try again in a second"),
                });
            }
            open.calls.insert(id, sender);
        }
        // From here on the handle's drop takes the call back.
        let handle = CallHandle { id, doors: self.clone(), answers, over: false };
        if !self.inner.inbox.send(Input::Request { id, request }).await {
            return Err(stopping());
        }
        Ok(handle)
    }

    /// Asks for one answer and waits for it, within a deadline. Failures are `Response::Failed`.
    pub async fn one(&self, request: Request) -> Response {
        let deadline =
            if matches!(request, Request::Deploy { .. }) { DEPLOY_DEADLINE } else { ANSWER_DEADLINE };
        self.one_within(request, deadline).await
    }

    pub async fn one_within(&self, request: Request, deadline: Duration) -> Response {
        let answer = async {
            match self.call(request).await {
                Ok(mut call) => match call.next().await {
                    Some((response, _)) => response,
                    None => Response::Failed(stopping()),
                },
                Err(fault) => Response::Failed(fault),
            }
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(response) => response,
            Err(_) => Response::Failed(Fault {
                kind: FaultKind::Unavailable,
                detail: format!(
                    "the node gave no answer within {} s: see its log and 'dunlin status', then try again",
                    deadline.as_secs()
                ),
            }),
        }
    }

    /// From the driver: an answer of the core. Never waits; answers that nobody awaits are dropped.
    pub fn answer(&self, id: RequestId, response: Response, last: bool) {
        let mut open = self.inner.open();
        let Some(call) = open.calls.get(&id) else { return };
        // A full channel means that more was sent than credit covers: the call is cut off, its
        // client sees the end and the handle's drop cancels it.
        let sent = match call.try_send((response, last)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        };
        if last || !sent {
            open.calls.remove(&id);
        }
    }

    /// The node stops: open calls end, new ones are refused.
    pub fn close(&self) {
        let mut open = self.inner.open();
        open.closed = true;
        open.calls.clear();
    }

    /// Calls that wait for answers now.
    pub fn open(&self) -> usize {
        self.inner.open().calls.len()
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, Open> {
        // The map is whole at every instant: a panic elsewhere leaves nothing half-done in it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> Fault {
    Fault {
        kind: FaultKind::Unavailable,
        detail: "the node is stopping: ask another one, or this one when it runs again".to_string(),
    }
}

/// One call's answers. Dropping it tells the core that the client went away.
#[derive(Debug)]
pub struct CallHandle {
    id: RequestId,
    doors: Doors,
    answers: mpsc::Receiver<(Response, bool)>,
    over: bool,
}

impl CallHandle {
    /// The next answer and whether it is the last; `None` behind the last, or when the node stops.
    pub async fn next(&mut self) -> Option<(Response, bool)> {
        if self.over {
            return None;
        }
        let answer = self.answers.recv().await;
        self.over = answer.as_ref().is_none_or(|(_, last)| *last);
        answer
    }

    /// The client took so many bytes: the core may send as many more.
    pub async fn credit(&self, bytes: u64) {
        if bytes > 0 && !self.over {
            self.doors.inner.inbox.send(Input::TapCredit { id: self.id, bytes }).await;
        }
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        self.doors.inner.open().calls.remove(&self.id);
        if self.over {
            return;
        }
        // The inbox may be full and a drop may not wait, so a task of its own carries the word.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inbox = self.doors.inner.inbox.clone();
            let id = self.id;
            runtime.spawn(async move { inbox.send(Input::Cancelled { id }).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Inputs;

    async fn asked(inputs: &mut Inputs) -> RequestId {
        match inputs.recv().await {
            Some(Input::Request { id, .. }) => id,
            other => panic!("{other:?} is no request"),
        }
    }

    #[tokio::test]
    async fn each_client_gets_its_own_answer() {
        let (inbox, mut inputs) = Inbox::new();
        let doors = Doors::new(inbox);
        let mut first = doors.call(Request::Status).await.unwrap();
        let mut second = doors.call(Request::Nodes).await.unwrap();
        let (one, two) = (asked(&mut inputs).await, asked(&mut inputs).await);
        doors.answer(two, Response::Nodes(vec![]), true);
        doors.answer(one, Response::Pipelines(vec![]), true);
        assert_eq!(first.next().await, Some((Response::Pipelines(vec![]), true)));
        assert_eq!(second.next().await, Some((Response::Nodes(vec![]), true)));
        assert_eq!(second.next().await, None);
        drop((first, second));
        assert_eq!(doors.open(), 0);
        assert!(inputs.try_recv().is_none(), "an answered call is not cancelled");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_cancelled_and_one_that_reads_grants_credit() {
        let (inbox, mut inputs) = Inbox::new();
        let doors = Doors::new(inbox);
        let call = doors.call(Request::Status).await.unwrap();
        let id = asked(&mut inputs).await;
        call.credit(7).await;
        assert_eq!(inputs.recv().await, Some(Input::TapCredit { id, bytes: 7 }));
        drop(call);
        assert_eq!(inputs.recv().await, Some(Input::Cancelled { id }));
        doors.answer(id, Response::Nodes(vec![]), true);
    }

    #[tokio::test]
    async fn a_stopping_node_ends_its_calls_and_takes_no_more() {
        let (inbox, _inputs) = Inbox::new();
        let doors = Doors::new(inbox);
        let mut call = doors.call(Request::Status).await.unwrap();
        doors.close();
        assert_eq!(call.next().await, None);
        assert!(matches!(doors.one(Request::Status).await, Response::Failed(_)));
    }

    #[tokio::test]
    async fn silence_becomes_a_sentence() {
        let (inbox, _inputs) = Inbox::new();
        let doors = Doors::new(inbox);
        let deadline = Duration::from_millis(10);
        let answer = doors.one_within(Request::Status, deadline).await;
        let Response::Failed(fault) = answer else { panic!("{answer:?} from nobody") };
        assert_eq!(fault.kind, FaultKind::Unavailable);
    }
}
