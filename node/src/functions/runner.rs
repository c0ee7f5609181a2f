//! From a chain to what runs it: the head comes from a factory, the steps from the operators.

use std::fmt;
use std::sync::Arc;

use dunlin_operators::operator::{Operator, State};
use dunlin_protocol::effect::{ActorSpec, CallError, Invoked, Outcome};
use dunlin_protocol::log::record::Emitted;
use dunlin_protocol::pipeline::plan::{Chain, Feed, Head};
use dunlin_protocol::time::Time;

use super::engine::Engine;
use super::ports::ModuleStore;
use super::wasm::WasmOperator;

type MakeHead = dyn Fn(&ActorSpec) -> Result<Option<Box<dyn Operator>>, String> + Send + Sync;

/// Makes the heads that are no guests: `learn` and sinks. `None` for a head without a function.
#[derive(Clone)]
pub struct HeadFactory(Arc<MakeHead>);

impl HeadFactory {
    pub fn new(
        make: impl Fn(&ActorSpec) -> Result<Option<Box<dyn Operator>>, String> + Send + Sync + 'static,
    ) -> HeadFactory {
        HeadFactory(Arc::new(make))
    }
}

impl fmt::Debug for HeadFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadFactory")
    }
}

/// The chain, ready to run. May take seconds: a guest is compiled.
pub(super) fn runner(
    spec: &ActorSpec,
    engine: &Engine,
    modules: &dyn ModuleStore,
    heads: &HeadFactory,
) -> Result<ChainRunner, String> {
    let chain = &spec.chain;
    let head: Option<Box<dyn Operator>> = match &chain.head {
        Head::Wasm { stage, spec } => {
            let operator = WasmOperator::new(engine, stage, spec, modules);
            Some(Box::new(operator.map_err(|error| error.to_string())?))
        }
        Head::None | Head::Pass => None,
        Head::Learn { .. } | Head::Sink { .. } => (heads.0)(spec)?,
    };
    ChainRunner::new(chain, head)
}

/// Runs a head alone; a chain with fused steps is refused rather than run without them.
pub(super) struct ChainRunner {
    head: Box<dyn Operator>,
    chain: Chain,
}

impl ChainRunner {
    fn new(chain: &Chain, head: Option<Box<dyn Operator>>) -> Result<ChainRunner, String> {
        match (head, chain.steps.first()) {
            (Some(head), None) => Ok(ChainRunner { head, chain: chain.clone() }),
            (_, Some(step)) => Err(format!("the fused stage '{}' cannot be run in this version", step.stage)),
            (None, None) => Err("a chain without a function has nothing to run".to_owned()),
        }
    }

    pub(super) fn run(
        &mut self,
        batch: &[Invoked],
        now: Time,
        state: &mut dyn State,
    ) -> Result<Outcome, CallError> {
        let handled = self.head.handle(batch, now, state)?;
        let mut emitted = Vec::new();
        for from_head in handled.emitted {
            let feed = from_head.side.map_or(Feed::Head, Feed::Side);
            for (output, _) in self.chain.outputs.iter().enumerate().filter(|(_, output)| output.from == feed)
            {
                emitted.push(Emitted { output: output as u16, event: from_head.event.clone() });
            }
        }
        Ok(Outcome {
            emitted,
            changes: Vec::new(),
            timers: handled.timers,
            observed: handled.observed,
            failed: handled.failed,
        })
    }

    pub(super) fn forget(&mut self) {
        self.head.forget();
    }
}
