//! The head of a `wasm` stage: an operator that hands each batch to a guest.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_operators::operator::{FromHead, Handled, Operator, State};
use dunlin_protocol::effect::{Again, CallError, Invoked};
use dunlin_protocol::event::Event;
use dunlin_protocol::id::Name;
use dunlin_protocol::limits::{COMMIT_BYTES_MAX, EVENT_BYTES_MAX, KEY_BYTES_MAX};
use dunlin_protocol::pipeline::manifest::{Module as Named, WasmSpec};
use dunlin_protocol::time::Time;
use wasmtime::{Store, UpdateDeadline};

use super::desk::Desk;
use super::engine::{Engine, EngineError, Module};
use super::guest::bindings::dunlin::function::types;
use super::guest::{Call, Guest, Limits, Random, cut, text};
use super::ids::Ids;
use super::ports::ModuleStore;
use super::stop::{Stop, call_error};

/// Bytes of a guest's own reason that are kept.
const REASON_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub struct WasmOperator {
    engine: Engine,
    module: Arc<Module>,
    stage: Arc<str>,
    config: Arc<str>,
    limits: Limits,
}

impl WasmOperator {
    /// Compiles the module, or takes it from the cache: may take seconds.
    pub fn new(
        engine: &Engine,
        stage: &Name,
        spec: &WasmSpec,
        modules: &dyn ModuleStore,
    ) -> Result<WasmOperator, EngineError> {
        let digest = match &spec.module {
            Named::Digest(digest) => *digest,
            Named::Path(path) => return Err(EngineError::NotUploaded(path.clone())),
        };
        let module = engine.load(digest, || match modules.get(digest) {
            Ok(Some(bytes)) => Ok(bytes.to_vec()),
            Ok(None) => Err(EngineError::Missing(digest)),
            Err(why) => Err(EngineError::Unreadable { digest, why }),
        })?;
        Ok(WasmOperator {
            engine: engine.clone(),
            module,
            stage: stage.as_str().into(),
            config: spec.config.as_str().into(),
            limits: Limits {
                fuel: spec.limits.fuel,
                memory: spec.limits.memory,
                call_time_max: engine.call_time_max(),
            },
        })
    }

    fn store(&self, batch: &[Invoked], now: Time, desk: &Desk) -> wasmtime::Result<Store<Guest>> {
        let call = Call {
            stage: &self.stage,
            config: &self.config,
            limits: self.limits,
            batch,
            now,
            random: Random::of_call(self.engine.seed(), self.module.digest, batch, now),
        };
        let mut store = Store::new(self.engine.wasmtime(), Guest::new(call, desk.clone()));
        store.limiter(|guest| guest);
        store.set_fuel(self.limits.fuel)?;
        // At each epoch it is set aside for a moment, so that whoever runs it can give up a thread that
        // others need.
        let epochs_max = self.engine.call_epochs_max();
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |mut store| {
            if store.data_mut().count_epoch() < epochs_max {
                Ok(UpdateDeadline::Yield(1))
            } else {
                Ok(UpdateDeadline::Interrupt)
            }
        });
        // One host call, or the result, may carry at most this over to the host: a little more than
        // a commit holds, so that the commit's own bound is the one that speaks.
        store.set_hostcall_fuel(2 * COMMIT_BYTES_MAX);
        Ok(store)
    }

    fn failed(&self, reason: String, again: Again) -> CallError {
        CallError { stage: self.stage.to_string(), reason, again }
    }
}

impl Operator for WasmOperator {
    fn handle(&mut self, batch: &[Invoked], now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let _permit = self.engine.permit();
        let desk = Desk::default();
        let mut store = self.store(batch, now, &desk).map_err(|error| {
            self.failed(format!("the function could not be started: {error:#}"), Again::Maybe)
        })?;
        let mut ids = Ids::default();
        let events: Vec<types::Event> = batch.iter().map(|invoked| event_in(invoked, &mut ids)).collect();

        let call = async {
            let function = self.module.pre.instantiate_async(&mut store).await?;
            function.call_handle(&mut store, &events).await
        };
        let answer = desk.serve(call, state);
        let guest = store.data();
        match answer {
            Some(Ok(Ok(outputs))) => self.outputs(batch, outputs, guest),
            Some(Ok(Err(types::Failure::GiveUp(reason)))) => {
                let reason = format!("the function gave up: {}", cut(&reason, REASON_BYTES_MAX));
                Err(self.failed(reason, Again::Never))
            }
            Some(Ok(Err(types::Failure::RetryAfter(retry)))) => {
                let reason = cut(&retry.reason, REASON_BYTES_MAX);
                let reason =
                    format!("the function asked to be tried again after {} ms: {reason}", retry.after_ms);
                Err(self.failed(reason, Again::Maybe))
            }
            Some(Err(error)) => Err(call_error(&self.stage, &error, guest)),
            None => {
                Err(self.failed("the function waits for something that never comes".into(), Again::Maybe))
            }
        }
    }

    /// Nothing is kept between calls.
    fn forget(&mut self) {}
}

impl WasmOperator {
    fn outputs(
        &self,
        batch: &[Invoked],
        outputs: Vec<types::Output>,
        guest: &Guest,
    ) -> Result<Handled, CallError> {
        let last = batch.len().saturating_sub(1) as u32;
        let mut weight = guest.changed_bytes();
        let mut emitted = Vec::with_capacity(outputs.len());
        for output in outputs {
            let cause = output.cause.unwrap_or(last);
            if cause > last {
                let reason = format!(
                    "the function named event {cause} as a cause, but its batch ends with event {last}"
                );
                return Err(self.failed(reason, Again::Maybe));
            }
            let event = event_out(output);
            check_emitted(&event).map_err(|reason| self.failed(reason, Again::Maybe))?;
            weight += event.weight();
            if weight > COMMIT_BYTES_MAX {
                let stop = Stop::CommitBytes { max: COMMIT_BYTES_MAX };
                return Err(self.failed(format!("the function was stopped: {stop}"), Again::Maybe));
            }
            emitted.push(FromHead { cause, side: None, event });
        }
        Ok(Handled { emitted, observed: guest.observed(), ..Handled::default() })
    }
}

/// What an event may be, whoever makes it: the door holds published ones to the same.
fn check_emitted(event: &Event) -> Result<(), String> {
    if event.weight() > EVENT_BYTES_MAX {
        return Err(format!(
            "the function emitted an event of {} bytes; an event may have {EVENT_BYTES_MAX}",
            event.weight()
        ));
    }
    if event.key.len() > KEY_BYTES_MAX {
        return Err(format!(
            "the function emitted an event with a key of {} bytes; a key may have {KEY_BYTES_MAX}",
            event.key.len()
        ));
    }
    if event.time > Time::LATEST {
        return Err(format!(
            "the function emitted an event of {} ms after 1970, which lies behind the year 9999",
            event.time.0
        ));
    }
    Ok(())
}

fn event_in(invoked: &Invoked, ids: &mut Ids) -> types::Event {
    let event = &invoked.placed.event;
    types::Event {
        id: ids.text(invoked.placed.id),
        input: u32::from(invoked.input),
        key: text(&event.key),
        time_ms: event.time.0,
        headers: event
            .headers
            .iter()
            .map(|(name, value)| types::Header { name: name.clone(), value: value.to_vec() })
            .collect(),
        payload: event.payload.to_vec(),
    }
}

fn event_out(output: types::Output) -> Event {
    Event {
        key: Bytes::from(output.key),
        time: Time(output.time_ms),
        headers: output.headers.into_iter().map(|header| (header.name, Bytes::from(header.value))).collect(),
        payload: Bytes::from(output.payload),
    }
}
