//! Publishers that retry: what they were acknowledged is what must be found.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::effect::RequestId;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{LogId, Name};
use dunlin_protocol::rpc::{FaultKind, ProducerRange, Publish, Request, Response};
use dunlin_protocol::time::{Span, Time};

use crate::world::World;

/// A publisher without an answer repeats the same request after this long.
const PATIENCE: Span = Span(3_000);

/// One producer at one node: numbered events over a few keys, in requests of a few.
#[derive(Debug)]
pub struct Publisher {
    pub node: usize,
    pub name: Name,
    pub pipeline: Name,
    pub source: Name,
    keys: u64,
    /// How many events it will publish.
    pub total: u64,
    /// The last sequence acknowledged.
    pub acknowledged: u64,
    under_way: Option<(RequestId, u64)>,
    next_at: Time,
    /// The log that took it, as its answers said.
    pub log: Option<LogId>,
}

impl Publisher {
    pub fn new(number: usize, node: usize, pipeline: Name, source: Name, keys: u64, total: u64) -> Publisher {
        let name = format!("producer-{number}").parse().expect("a legal name");
        Publisher {
            node,
            name,
            pipeline,
            source,
            keys,
            total,
            acknowledged: 0,
            under_way: None,
            next_at: Time(0),
            log: None,
        }
    }

    pub fn is_done(&self) -> bool {
        self.acknowledged >= self.total
    }

    /// Event number `n` of this producer: the same whenever it is asked for.
    pub fn event(&self, n: u64) -> Event {
        let key = format!("k{}", (n * 7 + n / 3) % self.keys);
        let payload =
            format!(r#"{{"producer":"{}","n":{n},"key":"{key}","v":{}}}"#, self.name, (n * 31) % 97);
        Event {
            key: Bytes::from(key.into_bytes()),
            time: Time(1_000_000 + n * 1000),
            headers: Vec::new(),
            payload: Bytes::from(payload.into_bytes()),
        }
    }

    /// Sends the next request, or the last one again.
    pub fn act(&mut self, world: &mut World) {
        if self.is_done() || world.now < self.next_at {
            return;
        }
        let first = self.acknowledged + 1;
        let last = match self.under_way {
            Some((_, last)) => last,
            None => (first + world.chance.between(0, 9)).min(self.total),
        };
        self.next_at = world.now.after(PATIENCE);
        if !world.is_up(self.node) {
            return;
        }
        let sequences: Vec<u64> = (first..=last).collect();
        let events = sequences.iter().map(|n| self.event(*n)).collect();
        let producer = Some(ProducerRange { producer: self.name.clone(), first, sequences, last });
        let publish = Publish {
            pipeline: self.pipeline.clone(),
            source: self.source.clone(),
            producer,
            log: None,
            events,
        };
        let id = world.request(self.node, Request::Publish(publish));
        self.under_way = Some((id, last));
    }

    /// True when the answer was for this publisher.
    pub fn on_answer(
        &mut self,
        id: RequestId,
        response: &Response,
        world: &mut World,
    ) -> Result<bool, String> {
        let Some((_, last)) = self.under_way.filter(|(asked, _)| *asked == id) else { return Ok(false) };
        match response {
            Response::Published { log, .. } => {
                self.acknowledged = last;
                self.log = Some(*log);
                self.under_way = None;
                self.next_at = world.now.after(Span(world.chance.between(0, 60)));
            }
            Response::Failed(fault) => match fault.kind {
                FaultKind::Busy { retry_after_ms } => self.next_at = world.now.after(Span(retry_after_ms)),
                FaultKind::Unknown | FaultKind::Unavailable | FaultKind::Storage => {
                    self.next_at = world.now.after(Span(500));
                }
                FaultKind::Invalid | FaultKind::Conflict | FaultKind::NotYet => {
                    return Err(format!("{} was refused: {}", self.name, fault.detail));
                }
            },
            other => return Err(format!("{} was answered {other:?}", self.name)),
        }
        Ok(true)
    }
}

/// All acknowledged events of all publishers, by (producer, n).
pub fn acknowledged(publishers: &[Publisher]) -> BTreeMap<(String, u64), Event> {
    publishers
        .iter()
        .flat_map(|publisher| {
            (1..=publisher.acknowledged).map(|n| ((publisher.name.to_string(), n), publisher.event(n)))
        })
        .collect()
}
