//! The readers: each keeps a ledger of what came, every event once, and how long it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dunlin_protocol::event::Event;
use dunlin_protocol::id::Name;
use dunlin_protocol::limits::EDGE_CREDIT_BYTES;
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::rpc::{Request, Response, Tail, TailFrom};
use hdrhistogram::Histogram;

use super::load::{Schedule, elapsed_ns};
use super::payload::{self, NUMBER_MAX};
use super::report;
use crate::network::{Answers, RpcClient};

/// The event by which a reader is known to be reached; it counts nowhere.
pub const PROBE: u64 = NUMBER_MAX;

/// What one reader has seen.
#[derive(Debug)]
pub struct Ledger {
    /// A bit for each number.
    seen: Vec<u64>,
    pub events: u64,
    pub twice: u64,
    /// Events that are not of this run: nothing else may be in its stream.
    pub foreign: u64,
    /// Nanoseconds from due to read.
    pub latency: Histogram<u64>,
    /// Earlier ones are left out of the latency: the way is still being opened.
    pub skip: u64,
}

impl Ledger {
    fn new() -> anyhow::Result<Ledger> {
        Ok(Ledger {
            seen: Vec::new(),
            events: 0,
            twice: 0,
            foreign: 0,
            latency: report::histogram()?,
            skip: 0,
        })
    }

    /// True the first time.
    fn mark(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        let Some(word) = self.seen.get_mut(word) else { return false };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Of the first `sent` events, those that never came.
    pub fn missing(&self, sent: u64) -> u64 {
        let came = (0..sent).filter(|number| {
            let word = self.seen.get((number / 64) as usize).copied().unwrap_or(0);
            word & (1 << (number % 64)) != 0
        });
        sent - came.count() as u64
    }
}

/// What all readers of a run share.
#[derive(Debug)]
pub struct Receipts {
    start: Instant,
    schedule: Schedule,
    /// Events over all readers, for who waits.
    pub events: AtomicU64,
    pub probes: AtomicU64,
    /// When the last event was read, in nanoseconds from the start.
    pub last_ns: AtomicU64,
    /// Why a reader ended.
    pub failed: Mutex<Option<String>>,
}

impl Receipts {
    pub fn new(start: Instant, schedule: Schedule) -> Receipts {
        Receipts {
            start,
            schedule,
            events: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            failed: Mutex::new(None),
        }
    }

    fn take<'a>(&self, ledger: &mut Ledger, events: impl Iterator<Item = &'a Event>) {
        let now = elapsed_ns(self.start);
        let before = ledger.events;
        for event in events {
            let Some(stamp) = payload::read(&event.payload) else {
                ledger.foreign += 1;
                continue;
            };
            if stamp.number == PROBE {
                self.probes.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if !ledger.mark(stamp.number) {
                ledger.twice += 1;
                continue;
            }
            ledger.events += 1;
            // What is due by a schedule is known to the nanosecond.
            let due = self.schedule.due_ns(stamp.number).or(stamp.due_us.map(|us| us * 1000));
            if let Some(due) = due
                && stamp.number >= ledger.skip
            {
                ledger.latency.saturating_record(now.saturating_sub(due));
            }
        }
        if ledger.events > before {
            self.last_ns.fetch_max(now, Ordering::Relaxed);
            self.events.fetch_add(ledger.events - before, Ordering::Relaxed);
        }
    }

    fn fail(&self, why: String) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// One reader at work until it is dropped.
#[derive(Debug)]
pub struct Reader {
    /// With the run that it counts for.
    ledger: Arc<Mutex<(Ledger, Arc<Receipts>)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    /// Taps a stream from its start; the pipeline is fresh.
    pub async fn open(
        client: &RpcClient,
        pipeline: &Name,
        stream: &StreamName,
        skip: u64,
        receipts: Arc<Receipts>,
    ) -> anyhow::Result<Reader> {
        let tail = Tail {
            pipeline: pipeline.clone(),
            stream: stream.clone(),
            from: TailFrom::Start,
            limit: None,
            follow: true,
            credit: EDGE_CREDIT_BYTES,
        };
        let answers = client.call(Request::Tail(tail)).await?;
        let ledger = Arc::new(Mutex::new((Ledger { skip, ..Ledger::new()? }, receipts)));
        let task = tokio::spawn(read(client.clone(), answers, ledger.clone()));
        Ok(Reader { ledger, task })
    }

    /// From now on it counts for this run.
    pub fn begin(&mut self, receipts: Arc<Receipts>) {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).1 = receipts;
    }

    pub fn ledger(&self) -> MutexGuard<'_, (Ledger, Arc<Receipts>)> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `_client`: the connection closes with its last clone.
async fn read(_client: RpcClient, mut answers: Answers, ledger: Arc<Mutex<(Ledger, Arc<Receipts>)>>) {
    let lock = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let events = match answers.next().await {
            Some(Ok((Response::Events { events }, _))) => Ok(events),
            Some(Ok((Response::Failed(fault), _))) => Err(fault.detail),
            Some(Ok((other, _))) => Err(format!("the node answered {other:?} to a tail")),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the node ended a tail".to_string()),
        };
        let events = match events {
            Ok(events) => events,
            Err(why) => return lock().1.fail(why),
        };
        {
            let (ledger, receipts) = &mut *lock();
            receipts.take(ledger, events.events());
        }
        answers.credit(events.weight()).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::super::payload::Template;
    use super::*;

    fn event(payload: Bytes) -> Event {
        Event { payload, ..Event::default() }
    }

    fn numbered(number: u64) -> Event {
        let mut line = BytesMut::new();
        Template::new(64, 0).write(number, 0, &mut line);
        event(Bytes::from(line.to_vec()))
    }

    #[test]
    fn what_is_missing_comes_twice_or_is_nobodys_is_counted() {
        let receipts = Receipts::new(Instant::now(), Schedule { rate: None, seconds: 1.0 });
        let mut ledger = Ledger::new().unwrap();
        receipts.take(
            &mut ledger,
            [numbered(0), numbered(2), numbered(PROBE), event(Bytes::from_static(b"{}"))].iter(),
        );
        receipts.take(&mut ledger, [numbered(2), numbered(70)].iter());
        assert_eq!((ledger.events, ledger.twice, ledger.foreign), (3, 1, 1));
        assert_eq!((ledger.missing(3), ledger.missing(71)), (1, 68));
        assert_eq!(receipts.events.load(Ordering::Relaxed), 3);
        assert_eq!(receipts.probes.load(Ordering::Relaxed), 1);
    }
}
