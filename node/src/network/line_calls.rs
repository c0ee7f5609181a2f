//! Calls with lines for a source, many at once on one substream, told apart by their ids. A substream for
//! each would cost a negotiation and some tasks for what may be a single event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_protocol::limits::FRAME_BYTES_MAX;
use dunlin_protocol::rpc::frames::{RpcCall, RpcIn, RpcOut};
use dunlin_protocol::rpc::lines::{Lines, LinesTaken};
use dunlin_protocol::rpc::{Fault, Response};
use futures::io::{AsyncReadExt as _, ReadHalf, WriteHalf};
use libp2p::Stream;
use tokio::sync::{mpsc, oneshot};

use super::frames::{self, FrameReader};
use super::rpc_client::{RpcError, SILENCE_MAX, lost};

/// Calls that wait to be written. Beyond: their callers wait.
const CALLS_MAX: usize = 64;

type Outcome = Result<Result<LinesTaken, Fault>, RpcError>;

/// One call with where its answer goes.
type Call = (Lines, oneshot::Sender<Outcome>);

/// The callers' end. The substream closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct LineCalls(mpsc::Sender<Call>);

/// Calls that have no answer yet, by their ids.
#[derive(Debug, Default)]
struct Waiting(Mutex<BTreeMap<u64, oneshot::Sender<Outcome>>>);

impl LineCalls {
    pub(super) fn over(stream: Stream) -> LineCalls {
        let (sender, calls) = mpsc::channel(CALLS_MAX);
        let (reader, writer) = stream.split();
        tokio::spawn(async move {
            let waiting = Arc::new(Waiting::default());
            tokio::select! {
                () = read(reader, &waiting) => {}
                () = write(writer, calls, &waiting) => {}
            }
            // Whoever still waits hears the end of its channel.
        });
        LineCalls(sender)
    }

    /// The substream is gone: another one is needed.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_closed()
    }

    pub(super) async fn publish(&self, lines: Lines) -> Outcome {
        let gone = || RpcError::Lost("the node closed it".into());
        let (reply, answer) = oneshot::channel();
        self.0.send((lines, reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Waiting {
    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Outcome>>> {
        // The table is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes calls until nobody calls any more and all are answered, or the substream breaks.
async fn write(mut writer: WriteHalf<Stream>, mut calls: mpsc::Receiver<Call>, waiting: &Waiting) {
    let mut id = 0;
    while let Some((lines, reply)) = calls.recv().await {
        id += 1;
        waiting.table().insert(id, reply);
        let call = RpcIn::Call { id, call: RpcCall::Lines(lines) };
        if let Err(error) = frames::write(&mut writer, &call).await {
            answer(waiting, id, Err(lost(error)));
            return;
        }
    }
}

/// Hands answers out until the substream ends.
async fn read(reader: ReadHalf<Stream>, waiting: &Waiting) {
    let mut frames = FrameReader::new(reader, FRAME_BYTES_MAX, SILENCE_MAX);
    loop {
        match frames.value::<RpcOut>().await {
            Ok(RpcOut::Lines { id, outcome }) => answer(waiting, id, Ok(outcome)),
            Ok(RpcOut::Answer { id, response: Response::Failed(fault), .. }) => {
                answer(waiting, id, Ok(Err(fault)));
            }
            Ok(RpcOut::Answer { id, .. } | RpcOut::Module { id, .. }) => {
                answer(waiting, id, Err(RpcError::Lost("the node answered something else".into())));
            }
            Err(_) => return,
        }
    }
}

fn answer(waiting: &Waiting, id: u64, outcome: Outcome) {
    let Some(reply) = waiting.table().remove(&id) else { return };
    // The caller may have gone.
    let _ = reply.send(outcome);
}
