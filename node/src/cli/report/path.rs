//! The series of one key: what was said and what came true, whole but thinned out, and its end.

use std::collections::VecDeque;

use dunlin_protocol::time::{Span, Time};

use super::bins::{Bins, Join};
use super::said::{Step, Target};

/// Points of the end of a path that are kept one by one.
pub const LATEST: usize = 150;

/// A prediction at the time of its outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub at: Time,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub truth: Option<f64>,
    pub last_value: f64,
}

/// The latest of a bin stands for it.
impl Join for Point {
    fn join(&mut self, other: Point) {
        if other.at >= self.at {
            *self = other;
        }
    }
}

/// One horizon of a path.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    pub all: Bins<Point>,
    pub latest: VecDeque<Point>,
}

impl Ends {
    fn add(&mut self, point: Point) {
        self.all.add(point.at, point);
        if self.latest.len() >= LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(point);
    }
}

#[derive(Debug, Clone)]
pub struct Path {
    pub key: String,
    /// Settled predictions.
    pub n: u64,
    pub first: Ends,
    /// Of the last horizon, where there are several.
    pub last: Ends,
    /// Predictions that are not due yet, of a stage that says when.
    waiting: Bins<Point>,
    /// The newest forecast.
    newest: Option<(Time, Target)>,
    /// The first horizon of the newest forecast of a stage that looks steps ahead.
    held: Option<Point>,
    settled_to: Time,
    /// When its predictions were made: the first, the last, how many.
    made: Option<(Time, Time, u64)>,
}

impl Path {
    pub fn new(key: &str) -> Path {
        Path {
            key: key.to_string(),
            n: 0,
            first: Ends::default(),
            last: Ends::default(),
            waiting: Bins::default(),
            newest: None,
            held: None,
            settled_to: Time(0),
            made: None,
        }
    }

    pub fn settled(&mut self, settled_at: Time, target: &Target) {
        self.n += 1;
        self.settled_to = self.settled_to.max(settled_at);
        match &target.steps[..] {
            [only] => self.first.add(point(only, settled_at, target)),
            [first, .., last] => {
                if let Some(due) = first.due {
                    self.first.add(point(first, due, target));
                }
                self.last.add(point(last, settled_at, target));
            }
            [] => {}
        }
    }

    /// A prediction as it went out. All settled ones came before.
    pub fn waits(&mut self, at: Time, target: &Target) {
        let (first, last, n) = self.made.unwrap_or((at, at, 0));
        self.made = Some((first.min(at), last.max(at), n + 1));
        if let [only] = &target.steps[..]
            && target.name.is_empty()
        {
            if let Some(due) = only.due.filter(|due| *due > self.settled_to) {
                self.waiting.add(due, point(only, due, target));
            }
            return;
        }
        if at < last {
            return;
        }
        if let [first, _, ..] = &target.steps[..]
            && first.due.is_none()
        {
            // Each event is the outcome of what was said one step before, long before its last is known.
            if let Some(held) = self.held.replace(point(first, at, target)) {
                self.first.add(Point { at, truth: Some(target.last_value), ..held });
            }
        }
        self.newest = Some((at, target.clone()));
    }

    /// What waits for its outcome: the predictions that are not due yet, or the newest forecast.
    pub fn ahead(&self) -> Vec<Point> {
        let mut ahead: Vec<Point> = self.waiting.values().copied().collect();
        if let Some((at, target)) = &self.newest {
            // Without times, the events ahead are expected at the pace of those before.
            let (first, last, n) = self.made.unwrap_or((*at, *at, 1));
            let pace = last.since(first).0 / n.saturating_sub(1).max(1);
            ahead.extend(target.steps.iter().zip(1..).map(|(step, steps)| {
                let due = step.due.unwrap_or_else(|| at.after(Span(pace.saturating_mul(steps))));
                point(step, due, target)
            }));
        }
        ahead
    }
}

fn point(step: &Step, at: Time, target: &Target) -> Point {
    Point {
        at,
        value: step.value,
        low: step.low,
        high: step.high,
        truth: step.truth,
        last_value: target.last_value,
    }
}
