//! Publishers that retry: what they were acknowledged is what must be found.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::effect::RequestId;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{LogId, Name};
use dunlin_protocol::rpc::{FaultKind, ProducerRange, Publish, Request, Response};
use dunlin_protocol::time::{Span, Time};

use crate::functions::POISON;
use crate::scenario::Scenario;
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
    /// Bytes that fill each event up.
    padding: usize,
    /// One in so many events is refused wherever it is counted.
    poison: u64,
    /// The node that it asks now: another one than its own once it can name the log.
    asks: usize,
    /// The durability class may lose a tail: told so, it sends again from where the log ends.
    may_lose: bool,
    /// How often it was told to wait, and that a disk did not take its events.
    pub busy: u64,
    pub unkept: u64,
}

impl Publisher {
    pub fn new(number: usize, node: usize, pipeline: Name, source: Name, scenario: &Scenario) -> Publisher {
        Publisher {
            node,
            name: format!("producer-{number}").parse().expect("a legal name"),
            pipeline,
            source,
            keys: 9,
            total: scenario.events_each,
            acknowledged: 0,
            under_way: None,
            next_at: Time(0),
            log: None,
            padding: scenario.padding,
            poison: scenario.poison,
            asks: node,
            may_lose: scenario.may_lose(),
            busy: 0,
            unkept: 0,
        }
    }

    /// Its node is gone for good: it publishes no more, and takes no answer for its own.
    pub fn retire(&mut self) {
        self.total = self.acknowledged;
        self.under_way = None;
    }

    pub fn is_done(&self) -> bool {
        self.acknowledged >= self.total
    }

    /// Event number `n` of this producer: the same whenever it is asked for.
    pub fn event(&self, n: u64) -> Event {
        let key = format!("k{}", (n * 7 + n / 3) % self.keys);
        let padding = "x".repeat(self.padding);
        let v = (n * 31) % 97;
        let mark = if self.poison > 0 && n % self.poison == 1 { POISON } else { "" };
        let payload = format!(
            r#"{{"producer":"{}","n":{n},"key":"{key}","v":{v},{mark}"padding":"{padding}"}}"#,
            self.name
        );
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
        // At its own node it may leave the log's name out; elsewhere the request is forwarded by it.
        let others = world.nodes.len() as u64 - 1;
        self.asks = match self.log {
            Some(_) if world.chance.one_in(5) => world.chance.between(0, others) as usize,
            Some(_) | None => self.node,
        };
        if !world.is_up(self.asks) {
            return;
        }
        let sequences: Vec<u64> = (first..=last).collect();
        let events = sequences.iter().map(|n| self.event(*n)).collect();
        let producer = Some(ProducerRange { producer: self.name.clone(), first, sequences, last });
        let publish = Publish {
            pipeline: self.pipeline.clone(),
            source: self.source.clone(),
            producer,
            log: self.log.filter(|_| self.asks != self.node),
            events,
        };
        let id = world.request(self.asks, Request::Publish(publish));
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
                FaultKind::Busy { retry_after_ms } => {
                    self.busy += 1;
                    self.next_at = world.now.after(Span(retry_after_ms));
                }
                FaultKind::Unknown | FaultKind::Unavailable | FaultKind::Storage => {
                    self.unkept += u64::from(fault.kind == FaultKind::Storage);
                    self.next_at = world.now.after(Span(500));
                }
                FaultKind::Conflict if self.may_lose && expected_of(&fault.detail).is_some() => {
                    let expected = expected_of(&fault.detail).unwrap_or(1);
                    self.acknowledged = expected - 1;
                    self.under_way = None;
                    self.next_at = world.now;
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

/// The sequence number that a refusal names.
fn expected_of(detail: &str) -> Option<u64> {
    detail.rsplit_once("send from ")?.1.split(' ').next()?.parse().ok()
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
