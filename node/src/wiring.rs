//! Where the rooms meet: each room asks for what it needs by a small trait of its own, and here the
//! others give it. No logic beyond passing on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_operators::anomaly::Anomaly;
use dunlin_operators::forecast::Forecast;
use dunlin_operators::learn::Learn;
use dunlin_operators::operator::Operator;
use dunlin_protocol::effect::{ActorSpec, Input};
use dunlin_protocol::id::{Digest, LogId, Position};
use dunlin_protocol::log::record::Change;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::plan::Head;
use dunlin_protocol::rpc::frames::{RpcCall, RpcIn, RpcOut};
use dunlin_protocol::rpc::{Fault, FaultKind, Publish, Request, Response};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::api::answers::{CallHandle, Doors};
use crate::api::door::{Door, ModuleShelf};
use crate::clock::Clock;
use crate::connectors::{PublishDoor, Published, SinkPlace, sink};
use crate::functions::{Engine, HeadFactory, ports};
use crate::inbox::Inbox;
use crate::network::{Modules, RpcDoor, RpcPeer};
use crate::storage::{LogReader, ModuleStore, SnapshotWriter, StateStore, StorageError};

// --- functions: heads, keyed state, modules, snapshots ---

/// `learn`, `forecast`, `anomaly` and sinks; guests are the functions' own.
pub fn heads(data_folder: PathBuf) -> HeadFactory {
    HeadFactory::new(move |spec: &ActorSpec| match &spec.chain.head {
        Head::Learn { spec, .. } => Ok(Some(Box::new(Learn::new(spec)?) as Box<dyn Operator>)),
        Head::Forecast { spec, .. } => Ok(Some(Box::new(Forecast::new(spec)?) as Box<dyn Operator>)),
        Head::Anomaly { spec, .. } => Ok(Some(Box::new(Anomaly::new(spec)?) as Box<dyn Operator>)),
        Head::Sink { sink: name, outlet } => {
            let LogName::Actor { pipeline, .. } = &spec.name else {
                return Err("a catalog log has no sink".to_string());
            };
            let place = SinkPlace {
                data_folder: data_folder.clone(),
                pipeline: pipeline.clone(),
                actor: spec.name.id(),
                follows: spec.follows,
            };
            sink(name, outlet, &place).map(Some)
        }
        Head::None | Head::Pass | Head::Wasm { .. } => Ok(None),
    })
}

/// The keyed state with the logs that it is brought up from.
#[derive(Debug)]
pub struct State {
    pub store: StateStore,
    pub reader: LogReader,
}

impl ports::StateStore for State {
    fn get(&self, log: LogId, key: &[u8]) -> Result<Option<Bytes>, String> {
        self.store.get(log, key).map_err(|error| error.to_string())
    }

    fn scan(&self, log: LogId, prefix: &[u8], limit: usize) -> Result<Vec<ports::Pair>, String> {
        self.store.scan(log, prefix, limit).map_err(|error| error.to_string())
    }

    fn apply(&self, log: LogId, at: Position, changes: &[Change]) -> Result<(), String> {
        self.store.apply(log, at, changes).map_err(|error| error.to_string())
    }

    fn bring_up(&self, log: LogId, head: Position) -> Result<(), String> {
        self.store.bring_up(log, head, &self.reader).map_err(|error| error.to_string())
    }

    fn dump<'a>(&'a self, log: LogId) -> Box<dyn Iterator<Item = Result<ports::Pair, String>> + 'a> {
        match self.store.dump(log) {
            Ok(entries) => Box::new(entries.map(|entry| entry.map_err(|error| error.to_string()))),
            Err(error) => Box::new(std::iter::once(Err(error.to_string()))),
        }
    }
}

#[derive(Debug)]
pub struct Snapshots(pub SnapshotWriter);

impl ports::SnapshotWriter for Snapshots {
    fn write(
        &self,
        log: LogId,
        at: Position,
        fold: &[u8],
        state: &mut dyn Iterator<Item = Result<ports::Pair, String>>,
    ) -> Result<(), String> {
        let mut entries = state.map(|entry| entry.map_err(StorageError::Entry));
        self.0.write(log, at, fold, &mut entries).map_err(|error| error.to_string())
    }
}

/// This node's modules, for functions, clients and other members.
#[derive(Debug, Clone)]
pub struct Shelf {
    pub store: ModuleStore,
    pub engine: Engine,
    pub inbox: Inbox,
}

impl Shelf {
    /// On a thread that may block, as `ModuleShelf` says.
    fn keep(&self, bytes: &[u8]) -> Result<Digest, String> {
        let digest = self.store.put(bytes).map_err(|error| error.to_string())?;
        // Before the uploader is answered: a deploy that follows at once must find the module known.
        self.inbox.send_blocking(Input::ModuleHeld { digest });
        Ok(digest)
    }
}

impl Shelf {
    /// Modules that were put here, or asked about, at least so long ago.
    pub fn older_than(&self, age: Duration) -> Result<Vec<Digest>, StorageError> {
        self.store.older_than(age)
    }

    pub fn remove(&self, digest: Digest) -> Result<(), StorageError> {
        self.store.remove(digest)?;
        self.engine.forget(digest);
        Ok(())
    }
}

impl ports::ModuleStore for Shelf {
    fn get(&self, digest: Digest) -> Result<Option<Bytes>, String> {
        self.store.get(digest).map_err(|error| error.to_string())
    }
}

impl Modules for Shelf {
    fn get(&self, digest: Digest) -> Option<Bytes> {
        self.store.get(digest).ok().flatten()
    }

    fn put(&self, bytes: Bytes) -> Result<Digest, String> {
        self.store.put(&bytes).map_err(|error| error.to_string())
    }
}

impl ModuleShelf for Shelf {
    fn put(&self, bytes: Bytes) -> Result<Digest, Fault> {
        // Compiled before it is kept: what could not run is nowhere, and a deploy that names it
        // fails before it begins. The first actor finds it in the cache.
        self.engine
            .check(&bytes)
            .map_err(|why| Fault { kind: FaultKind::Invalid, detail: why.to_string() })?;
        self.keep(&bytes).map_err(|detail| Fault { kind: FaultKind::Storage, detail })
    }

    fn has(&self, digest: &Digest) -> bool {
        self.store.has(*digest)
    }
}

// --- connectors: a publish door that blocks their own threads ---

#[derive(Debug, Clone)]
pub struct ConnectorDoor {
    pub doors: Doors,
    pub runtime: Handle,
}

impl PublishDoor for ConnectorDoor {
    fn publish(&self, publish: Publish) -> Result<Published, Fault> {
        match self.runtime.block_on(self.doors.one(Request::Publish(publish))) {
            Response::Published { log, acknowledged, last, .. } => Ok(Published { log, acknowledged, last }),
            Response::Failed(fault) => Err(fault),
            other => Err(crate::api::door::unexpected(&other)),
        }
    }
}

// --- the RPC door over libp2p: the same door that HTTP uses ---

/// Calls at work at once on one substream.
const CALLS_MAX: usize = 256;

#[derive(Debug, Clone)]
pub struct Rpc {
    pub door: Door,
    pub clock: Clock,
    pub runtime: Handle,
}

impl RpcDoor for Rpc {
    fn open(&self, _from: RpcPeer, incoming: mpsc::Receiver<RpcIn>, outgoing: mpsc::Sender<RpcOut>) {
        self.runtime.spawn(self.clone().serve(incoming, outgoing));
    }
}

impl Rpc {
    async fn serve(self, mut incoming: mpsc::Receiver<RpcIn>, outgoing: mpsc::Sender<RpcOut>) {
        let mut tails: std::collections::BTreeMap<u64, mpsc::Sender<u64>> = std::collections::BTreeMap::new();
        let calls = Arc::new(tokio::sync::Semaphore::new(CALLS_MAX));
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(frame) = incoming.recv().await {
            while tasks.try_join_next().is_some() {}
            match frame {
                RpcIn::Call { id, call } => {
                    let Ok(permit) = calls.clone().acquire_owned().await else { return };
                    let (credit, credits) = mpsc::channel(64);
                    tails.insert(id, credit);
                    let (rpc, outgoing) = (self.clone(), outgoing.clone());
                    tasks.spawn(async move {
                        rpc.call(id, call, credits, outgoing).await;
                        drop(permit);
                    });
                }
                RpcIn::Credit { id, bytes } => {
                    if let Some(tail) = tails.get(&id) {
                        // A tail that ended takes no more credit.
                        let _ = tail.send(bytes).await;
                    }
                }
                // Dropping the sender ends the tail.
                RpcIn::Cancel { id } => drop(tails.remove(&id)),
                // The network puts a module's pieces together before it comes here.
                RpcIn::Piece { .. } => {}
            }
            tails.retain(|_, tail| !tail.is_closed());
        }
        // The caller is gone: its calls go with the set.
    }

    async fn call(
        &self,
        id: u64,
        call: RpcCall,
        credits: mpsc::Receiver<u64>,
        outgoing: mpsc::Sender<RpcOut>,
    ) {
        let answer = |response| RpcOut::Answer { id, response, last: true };
        let out = match call {
            RpcCall::Request(Request::Tail(tail)) => match self.door.doors.call(Request::Tail(tail)).await {
                Ok(handle) => return pass_tail(id, handle, credits, outgoing).await,
                Err(fault) => answer(Response::Failed(fault)),
            },
            // Whoever sends events says them as lines: then they are checked like everybody's.
            RpcCall::Request(Request::Publish(_)) => answer(Response::Failed(Fault {
                kind: FaultKind::Invalid,
                detail: "events are published as lines, and this request holds parsed ones: send `Lines`"
                    .into(),
            })),
            RpcCall::Request(request) => {
                answer(self.door.ask(request).await.unwrap_or_else(Response::Failed))
            }
            RpcCall::Lines(lines) => {
                RpcOut::Lines { id, outcome: self.door.publish(lines, self.clock.now()).await }
            }
            RpcCall::PutModule(bytes) => match self.door.put_module(bytes).await {
                Ok(digest) => RpcOut::Module { id, digest, held: true },
                Err(fault) => answer(Response::Failed(fault)),
            },
            RpcCall::HasModule(digest) => RpcOut::Module { id, digest, held: self.door.shelf.has(&digest) },
        };
        // The caller may be gone.
        let _ = outgoing.send(out).await;
    }
}

async fn pass_tail(
    id: u64,
    mut handle: CallHandle,
    mut credits: mpsc::Receiver<u64>,
    outgoing: mpsc::Sender<RpcOut>,
) {
    loop {
        tokio::select! {
            answer = handle.next() => {
                let Some((response, last)) = answer else { return };
                if outgoing.send(RpcOut::Answer { id, response, last }).await.is_err() || last {
                    return;
                }
            }
            credit = credits.recv() => match credit {
                Some(bytes) => handle.credit(bytes).await,
                None => return,
            },
        }
    }
}
