//! From a chain to what runs it: the head comes from a factory, the steps from the operators.

use std::fmt;
use std::sync::Arc;

use dunlin_operators::chain::ChainRunner;
use dunlin_operators::operator::Operator;
use dunlin_protocol::effect::ActorSpec;
use dunlin_protocol::pipeline::plan::Head;

use super::engine::Engine;
use super::ports::ModuleStore;
use super::wasm::WasmOperator;

type MakeHead = dyn Fn(&ActorSpec) -> Result<Option<Box<dyn Operator>>, String> + Send + Sync;

/// Makes the heads that are no guests: `learn`, `forecast` and sinks. `None` for a head without a function.
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
        Head::Learn { .. } | Head::Forecast { .. } | Head::Anomaly { .. } | Head::Sink { .. } => {
            (heads.0)(spec)?
        }
    };
    ChainRunner::new(chain, head)
}
