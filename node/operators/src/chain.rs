//! What one actor runs: its head, and the stateless steps fused behind it, in one call.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use cel::common::types::{CelInt, CelString};
use dunlin_protocol::effect::{Again, CallError, FailedEvent, Invoked, Outcome, Refused};
use dunlin_protocol::event::Event;
use dunlin_protocol::log::record::Emitted;
use dunlin_protocol::pipeline::plan::{Chain, Feed, Head, StepOperator};
use dunlin_protocol::time::Time;

use crate::expression::{Expression, write_object};
use crate::field::{bounded, fields, key_text};
use crate::operator::{FromHead, Operator, State};
use crate::payload::Payload;

/// A chain, compiled.
pub struct ChainRunner {
    /// None for `Head::Pass`: events go to the steps as they came.
    head: Option<Box<dyn Operator>>,
    steps: Vec<Step>,
    outputs: Vec<Feed>,
}

struct Step {
    stage: String,
    from: Feed,
    does: Does,
}

enum Does {
    Filter(Expression),
    Map(Vec<(String, Expression)>),
    Rekey(String),
}

impl fmt::Debug for ChainRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainRunner({} steps, {} outputs)", self.steps.len(), self.outputs.len())
    }
}

/// Where an event comes in.
#[derive(Clone, Copy)]
enum Entry {
    /// Behind the head: whatever this feeds.
    Feed(Feed),
    /// At this step alone: what it refused before is tried again.
    Step(usize),
}

/// An event on its way through the steps.
#[derive(Clone)]
struct Flowing {
    event: Event,
    /// The payload, once a step has needed its fields.
    parsed: Option<Result<Rc<Payload>, String>>,
}

impl Flowing {
    fn payload(&mut self) -> Result<Rc<Payload>, String> {
        let bytes = &self.event.payload;
        self.parsed.get_or_insert_with(|| Payload::parse(bytes).map(Rc::new)).clone()
    }

    /// The key that field `field` gives, spelled as at a source.
    fn key(&self, field: &str) -> Result<Bytes, String> {
        if let Some(Ok(payload)) = &self.parsed
            && let Some(value) = payload.field(field)
        {
            if let Some(text) = value.downcast_ref::<CelString>() {
                let key = bounded(field, Bytes::copy_from_slice(text.inner().as_bytes()));
                return key.map_err(no_key);
            }
            if let Some(number) = value.downcast_ref::<CelInt>() {
                return Ok(Bytes::from(number.inner().to_string()));
            }
        }
        let text = std::str::from_utf8(&self.event.payload).map_err(|_| "it is not UTF-8 text".to_owned());
        let key = text.and_then(|text| {
            let [value] = fields(text.as_bytes(), [Some(field)])?;
            key_text(field, value.as_ref())
        });
        key.map_err(no_key)
    }
}

fn no_key(why: String) -> String {
    format!("the event cannot get its key: {why}")
}

impl ChainRunner {
    /// Compiles the steps. `head` is the chain's head function: none for `Head::Pass`, one for every
    /// other head. An error is a sentence.
    pub fn new(chain: &Chain, head: Option<Box<dyn Operator>>) -> Result<ChainRunner, String> {
        match (&chain.head, &head) {
            (Head::None, _) => return Err("a source log runs no function, so it has no chain".to_owned()),
            (Head::Pass, Some(_)) => return Err("a chain that passes its events on has no head".to_owned()),
            (
                Head::Wasm { stage, .. }
                | Head::Learn { stage, .. }
                | Head::Forecast { stage, .. }
                | Head::Anomaly { stage, .. },
                None,
            ) => return Err(format!("the function of stage '{stage}' is missing")),
            (Head::Sink { sink, .. }, None) => return Err(format!("the outlet of sink '{sink}' is missing")),
            (Head::Pass, None)
            | (
                Head::Wasm { .. }
                | Head::Learn { .. }
                | Head::Forecast { .. }
                | Head::Anomaly { .. }
                | Head::Sink { .. },
                Some(_),
            ) => {}
        }
        let mut steps: Vec<Step> = Vec::new();
        for step in &chain.steps {
            if matches!(step.from, Feed::Step(from) if usize::from(from) >= steps.len()) {
                return Err(format!("stage '{}' is fused behind a later step", step.stage));
            }
            let compile = |text: &str| {
                Expression::compile(text).map_err(|bad| format!("stage '{}': {bad}", step.stage))
            };
            let does = match &step.operator {
                StepOperator::Filter(text) => Does::Filter(compile(text)?),
                StepOperator::Map(fields) => {
                    let field = |(field, text): &(String, String)| Ok((field.clone(), compile(text)?));
                    Does::Map(fields.iter().map(field).collect::<Result<_, String>>()?)
                }
                StepOperator::Rekey(field) => Does::Rekey(field.clone()),
            };
            steps.push(Step { stage: step.stage.to_string(), from: step.from, does });
        }
        let outputs = chain.outputs.iter().map(|output| output.from).collect();
        Ok(ChainRunner { head, steps, outputs })
    }

    /// Runs a batch. Changes of state go into `state`, whose host fills `Outcome::changes`. Emitted
    /// events stand in the order of the events that caused them, for each in the order of outputs.
    pub fn run(&mut self, batch: &[Invoked], now: Time, state: &mut dyn State) -> Result<Outcome, CallError> {
        let mut outcome = Outcome::default();
        for (index, invoked) in batch.iter().enumerate() {
            let event = invoked.placed.event.clone();
            match (invoked.step, &self.head) {
                (Some(step), _) => {
                    self.flow(index as u32, Entry::Step(usize::from(step)), event, &mut outcome)
                }
                (None, None) => self.flow(index as u32, Entry::Feed(Feed::Head), event, &mut outcome),
                (None, Some(_)) => {}
            }
        }
        let (causes, batch) = for_head(batch);
        if let Some(head) = &mut self.head
            && !batch.is_empty()
        {
            let cause = |index: u32| causes.get(index as usize).copied().unwrap_or(index);
            let handled = head.handle(&batch, now, state)?;
            let failed = handled.failed.into_iter();
            outcome.failed.extend(failed.map(|failed| FailedEvent { index: cause(failed.index), ..failed }));
            outcome.timers = handled.timers;
            outcome.observed = handled.observed;
            for FromHead { cause: index, side, event } in handled.emitted {
                let feed = side.map_or(Feed::Head, Feed::Side);
                self.flow(cause(index), Entry::Feed(feed), event, &mut outcome);
            }
        }
        outcome.failed.sort_by_key(|failed| failed.index);
        Ok(outcome)
    }

    /// Staged state was discarded or a call undone.
    pub fn forget(&mut self) {
        if let Some(head) = &mut self.head {
            head.forget();
        }
    }

    /// Takes one event from where it comes in through the steps to the outputs.
    fn flow(&self, cause: u32, entry: Entry, event: Event, outcome: &mut Outcome) {
        if self.steps.is_empty() {
            let feeds = |feed: &Feed| matches!(entry, Entry::Feed(enters) if *feed == enters);
            let fed = self.outputs.iter().enumerate().filter(|(_, feed)| feeds(feed));
            let emitted = fed.map(|(output, _)| Emitted { output: output as u16, event: event.clone() });
            return outcome.emitted.extend(emitted);
        }
        // What flows: the entering event first, then what maps and rekeys made of it.
        let mut flowing = vec![Flowing { event, parsed: None }];
        // For each step the index of what left it.
        let mut left: Vec<Option<usize>> = Vec::with_capacity(self.steps.len());
        let at = |left: &[Option<usize>], feed: Feed| match feed {
            Feed::Step(step) => left.get(usize::from(step)).copied().flatten(),
            feed => matches!(entry, Entry::Feed(enters) if feed == enters).then_some(0),
        };
        for (index, step) in self.steps.iter().enumerate() {
            let entered = match entry {
                Entry::Step(enters) if enters == index => Some(0),
                Entry::Step(_) | Entry::Feed(_) => at(&left, step.from),
            };
            let Some(here) = entered.and_then(|index| flowing.get_mut(index)) else {
                left.push(None);
                continue;
            };
            match step.run(here) {
                Ok(Passed::Not) => left.push(None),
                Ok(Passed::Same) => left.push(entered),
                Ok(Passed::New(new)) => {
                    left.push(Some(flowing.len()));
                    flowing.push(new);
                }
                Err(reason) => {
                    left.push(None);
                    let refused = Some(Refused { step: index as u16, event: here.event.clone() });
                    let stage = step.stage.clone();
                    let failed = FailedEvent { index: cause, refused, stage, reason, again: Again::Never };
                    outcome.failed.push(failed);
                }
            }
        }
        for (output, feed) in self.outputs.iter().enumerate() {
            if let Some(flowing) = at(&left, *feed).and_then(|index| flowing.get(index)) {
                let event = flowing.event.clone();
                outcome.emitted.push(Emitted { output: output as u16, event });
            }
        }
    }
}

/// The events that the head sees, and where each stands in the batch when that is another place.
fn for_head(batch: &[Invoked]) -> (Vec<u32>, Cow<'_, [Invoked]>) {
    if batch.iter().all(|invoked| invoked.step.is_none()) {
        return (Vec::new(), Cow::Borrowed(batch));
    }
    let at_head = (0u32..).zip(batch).filter(|(_, invoked)| invoked.step.is_none());
    let (causes, events): (Vec<u32>, Vec<Invoked>) =
        at_head.map(|(index, invoked)| (index, invoked.clone())).unzip();
    (causes, Cow::Owned(events))
}

enum Passed {
    Not,
    Same,
    New(Flowing),
}

impl Step {
    fn run(&self, flowing: &mut Flowing) -> Result<Passed, String> {
        match &self.does {
            Does::Filter(expression) => Ok(match expression.test(&*flowing.payload()?)? {
                true => Passed::Same,
                false => Passed::Not,
            }),
            Does::Map(fields) => {
                let payload = Bytes::from(write_object(fields, &*flowing.payload()?)?);
                let event = Event { payload, ..flowing.event.clone() };
                Ok(Passed::New(Flowing { event, parsed: None }))
            }
            Does::Rekey(field) => {
                let key = flowing.key(field)?;
                let event = Event { key, ..flowing.event.clone() };
                Ok(Passed::New(Flowing { event, parsed: flowing.parsed.clone() }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
