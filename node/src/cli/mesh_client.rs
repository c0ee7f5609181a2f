//! The client behind libp2p: a throw-away identity and a token; RPC only, never a member.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_protocol::id::Digest;
use dunlin_protocol::rpc::lines::{Lines, LinesTaken};
use dunlin_protocol::rpc::tailed::TailedEvents;
use dunlin_protocol::rpc::{Request, Response, Tail, TailEvent};
use tokio::runtime::Runtime;

use super::client::{Client, Failure, TailEvents};
use crate::network::{Answers, RpcClient, RpcError};

#[derive(Debug)]
pub struct MeshClient {
    runtime: Arc<Runtime>,
    client: RpcClient,
    address: String,
}

/// Opens the door of the node at this multiaddr.
pub fn connect(address: &str, token: &str) -> Result<Box<dyn Client>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::Unreadable(format!("the runtime did not start: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(unreadable)?;
    let client =
        runtime.block_on(RpcClient::connect(address, token)).map_err(|error| failure(error, address))?;
    Ok(Box::new(MeshClient { runtime: Arc::new(runtime), client, address: address.to_string() }))
}

fn failure(error: RpcError, address: &str) -> Failure {
    match error {
        RpcError::Lost(why) => Failure::Broken { address: address.to_string(), why },
        RpcError::Module(fault) => Failure::Refused(fault),
        // These sentences name the address and what to do themselves.
        other => Failure::Unreadable(other.to_string()),
    }
}

impl MeshClient {
    fn failed(&self, error: RpcError) -> Failure {
        failure(error, &self.address)
    }

    fn ended(&self) -> Failure {
        Failure::Broken {
            address: self.address.clone(),
            why: "the node ended the call without an answer".into(),
        }
    }
}

impl Client for MeshClient {
    fn ask(&self, request: Request) -> Result<Response, Failure> {
        self.runtime.block_on(async {
            let mut answers = self.client.call(request).await.map_err(|error| self.failed(error))?;
            match answers.next().await {
                Some(Ok((Response::Failed(fault), _))) => Err(Failure::Refused(fault)),
                Some(Ok((response, _))) => Ok(response),
                Some(Err(error)) => Err(self.failed(error)),
                None => Err(self.ended()),
            }
        })
    }

    fn tail(&self, tail: Tail) -> Result<TailEvents, Failure> {
        let answers = self
            .runtime
            .block_on(self.client.call(Request::Tail(tail)))
            .map_err(|error| self.failed(error))?;
        Ok(Box::new(Tapped {
            runtime: self.runtime.clone(),
            _client: self.client.clone(),
            answers,
            address: self.address.clone(),
            waiting: TailedEvents::default(),
            taken: 0,
            over: false,
        }))
    }

    fn publish(&self, lines: Lines) -> Result<LinesTaken, Failure> {
        let outcome =
            self.runtime.block_on(self.client.publish(lines)).map_err(|error| self.failed(error))?;
        outcome.map_err(Failure::Refused)
    }

    fn has_module(&self, digest: Digest) -> Result<bool, Failure> {
        self.runtime.block_on(self.client.has_module(digest)).map_err(|error| self.failed(error))
    }

    fn put_module(&self, bytes: &[u8]) -> Result<Digest, Failure> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.runtime.block_on(self.client.put_module(bytes)).map_err(|error| self.failed(error))
    }
}

/// A tail's events, one by one; credit goes back once an answer's events are all taken.
struct Tapped {
    runtime: Arc<Runtime>,
    /// The connection closes with its last clone.
    _client: RpcClient,
    answers: Answers,
    address: String,
    waiting: TailedEvents,
    /// Bytes of the answer under way.
    taken: u64,
    over: bool,
}

impl Iterator for Tapped {
    type Item = Result<TailEvent, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.waiting.next() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            let (runtime, taken) = (self.runtime.clone(), std::mem::take(&mut self.taken));
            let answer = runtime.block_on(async {
                if taken > 0 {
                    self.answers.credit(taken).await;
                }
                self.answers.next().await
            });
            match answer {
                Some(Ok((Response::Events { events }, last))) => {
                    self.taken = events.weight();
                    self.over = last;
                    self.waiting = events.into_iter();
                }
                Some(Ok((Response::Failed(fault), _))) => {
                    self.over = true;
                    return Some(Err(Failure::Refused(fault)));
                }
                Some(Ok((other, _))) => {
                    self.over = true;
                    return Some(Err(Failure::Unreadable(format!("the node answered {other:?} to a tail"))));
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Some(Err(failure(error, &self.address)));
                }
                None => return None,
            }
        }
    }
}
