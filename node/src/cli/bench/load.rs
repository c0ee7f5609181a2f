//! The publisher: open loop. When an event is due is decided before the run, and no answer delays it; a
//! node that is slow lets due events gather, and their latency counts from when they were due.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dunlin_protocol::id::Name;
use dunlin_protocol::rpc::lines::{Lines, LinesTaken};
use dunlin_protocol::rpc::{Fault, FaultKind};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::payload::{NUMBER_MAX, Template};
use crate::network::RpcClient;

/// One request, at most: larger ones gain nothing and make the first of their events wait.
const REQUEST_BYTES: usize = 256 << 10;
const REQUEST_LINES: u64 = 4096;
/// Requests without an answer: at a fixed rate so many that only a stall fills them, and as fast as
/// events are taken so many that the node always has the next one.
const IN_FLIGHT_PACED: usize = 128;
const IN_FLIGHT_MAX: usize = 8;
/// A node that is busy for so long is not measured any more.
const BUSY_DEADLINE: Duration = Duration::from_secs(30);

/// When events are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Events per second; none: each is due when there is room for it.
    pub rate: Option<f64>,
    pub seconds: f64,
}

impl Schedule {
    /// How many are due in all; at no fixed rate nobody knows.
    fn total(&self) -> Option<u64> {
        self.rate.map(|rate| ((rate * self.seconds) as u64).clamp(1, NUMBER_MAX - 1))
    }

    /// Nanoseconds from the start at which event `number` is due, if that is fixed.
    pub fn due_ns(&self, number: u64) -> Option<u64> {
        self.rate.map(|rate| (number as f64 * 1e9 / rate) as u64)
    }

    /// Events that are due `ns` after the start.
    fn due_by(&self, ns: u64) -> u64 {
        let due = self.rate.map_or(NUMBER_MAX - 1, |rate| (ns as f64 * rate / 1e9) as u64 + 1);
        due.min(self.total().unwrap_or(NUMBER_MAX - 1))
    }
}

/// Where events go.
#[derive(Debug, Clone)]
pub struct Target {
    pub client: RpcClient,
    pub pipeline: Name,
    pub source: Name,
}

impl Target {
    /// Until the node took them all. An error is a sentence.
    pub async fn publish(&self, lines: BytesMut) -> Result<u64, String> {
        let lines = Lines {
            pipeline: self.pipeline.clone(),
            source: self.source.clone(),
            producer: None,
            log: None,
            lines: lines.freeze(),
        };
        let began = Instant::now();
        loop {
            // A copy of handles, not of bytes.
            let wait = match self.client.publish(lines.clone()).await {
                Ok(Ok(taken)) => return all_taken(&taken),
                Ok(Err(Fault { kind: FaultKind::Busy { retry_after_ms }, detail })) => {
                    if began.elapsed() > BUSY_DEADLINE {
                        return Err(detail);
                    }
                    retry_after_ms
                }
                Ok(Err(fault)) => return Err(fault.detail),
                Err(error) => return Err(error.to_string()),
            };
            tokio::time::sleep(Duration::from_millis(wait.clamp(1, 1000))).await;
        }
    }
}

fn all_taken(taken: &LinesTaken) -> Result<u64, String> {
    match taken.rejected.first() {
        None => Ok(taken.acknowledged),
        Some(line) => Err(format!("the node rejected an event of the bench ({}): report this", line.reason)),
    }
}

/// Sends by the schedule; answers with how many events were sent, all of them acknowledged.
pub async fn send(
    target: Target,
    template: &Template,
    schedule: Schedule,
    start: Instant,
) -> Result<u64, String> {
    let in_flight = if schedule.rate.is_some() { IN_FLIGHT_PACED } else { IN_FLIGHT_MAX };
    let room = Arc::new(Semaphore::new(in_flight));
    let lines_max = ((REQUEST_BYTES / template.line_bytes()) as u64).clamp(1, REQUEST_LINES);
    let end_ns = (schedule.seconds * 1e9) as u64;
    let mut due = schedule.rate.map(|_| pace(schedule, start));
    let mut requests = JoinSet::new();
    let mut sent = 0;
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let ready = match &mut due {
            None if elapsed_ns(start) >= end_ns => break,
            None => NUMBER_MAX - 1,
            Some(due) => match due.wait_for(|ready| *ready > sent).await {
                Ok(ready) => *ready,
                // The pacing thread has ended: everything is due.
                Err(_) => schedule.total().unwrap_or(sent),
            },
        };
        let count = ready.saturating_sub(sent).min(lines_max);
        if count == 0 {
            break;
        }
        let mut lines = BytesMut::with_capacity(count as usize * template.line_bytes());
        let now_us = elapsed_ns(start) / 1000;
        for number in sent..sent + count {
            let due_us = schedule.due_ns(number).map_or(now_us, |ns| ns / 1000);
            template.write(number, due_us, &mut lines);
        }
        sent += count;
        let target = target.clone();
        requests.spawn(async move {
            let taken = target.publish(lines).await;
            drop(permit);
            taken
        });
        while let Some(done) = requests.try_join_next() {
            done.map_err(|error| error.to_string())??;
        }
    }
    while let Some(done) = requests.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(sent)
}

/// A thread that says how many events are due: the runtime's own timer only has steps of a
/// millisecond. It ends when all are due or nobody listens.
fn pace(schedule: Schedule, start: Instant) -> watch::Receiver<u64> {
    let (say, due) = watch::channel(0);
    thread::spawn(move || {
        let total = schedule.total().unwrap_or(0);
        let mut ready = 0;
        while ready < total {
            let next = Duration::from_nanos(schedule.due_ns(ready).unwrap_or(0));
            thread::sleep((start + next).saturating_duration_since(Instant::now()));
            ready = schedule.due_by(elapsed_ns(start)).max(ready);
            if say.send(ready).is_err() {
                return;
            }
        }
    });
    due
}

/// Since the start; 0 before it.
pub fn elapsed_ns(start: Instant) -> u64 {
    u64::try_from(Instant::now().saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_does_not_wait_for_anybody() {
        let schedule = Schedule { rate: Some(1000.0), seconds: 2.0 };
        assert_eq!(schedule.total(), Some(2000));
        assert_eq!(schedule.due_ns(5), Some(5_000_000));
        assert_eq!((schedule.due_by(0), schedule.due_by(5_500_000)), (1, 6));
        assert_eq!(schedule.due_by(60_000_000_000), 2000, "never more than all");
        let free = Schedule { rate: None, seconds: 1.0 };
        assert_eq!((free.total(), free.due_ns(5)), (None, None));
    }

    #[test]
    fn the_pacing_thread_says_all_in_the_end() {
        let schedule = Schedule { rate: Some(100_000.0), seconds: 0.01 };
        let mut due = pace(schedule, Instant::now());
        let last = futures::executor::block_on(async {
            let mut last = 0;
            while due.changed().await.is_ok() {
                last = *due.borrow_and_update();
            }
            last.max(*due.borrow())
        });
        assert_eq!(last, 1000);
    }
}
