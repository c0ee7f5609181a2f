//! How one run of one seed ended.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::listing;
use crate::run::{Broken, Good, Run};
use crate::scenario::Scenario;

/// A run that ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// 127 after a crash, 128 without progress, 129 when a promise is broken.
    pub code: u8,
    pub what: String,
    /// The last transitions.
    pub trace: Vec<String>,
    /// Every log at the end, a line per record; only of loud runs.
    pub logs: Vec<String>,
}

/// Runs a seed once. `loud`: every transition is printed.
pub fn once(seed: u64, scenario: Scenario, loud: bool) -> Result<Good, Failure> {
    let mut run = Run::new(seed, scenario);
    run.world.trace.loud = loud;
    let outcome = catch_unwind(AssertUnwindSafe(|| run.go()));
    let (code, what) = match outcome {
        Ok(Ok(good)) => return Ok(good),
        Ok(Err(broken @ Broken::NoProgress(_))) => (128, broken.to_string()),
        Ok(Err(broken @ Broken::Promise(_))) => (129, broken.to_string()),
        // What was broken before comes first: a world in which a promise is broken may well stop there.
        Err(panic) => match run.world.watch.broken.take() {
            Some(broken) => (129, Broken::Promise(broken).to_string()),
            None => (127, format!("a node crashed: {}", said(&*panic))),
        },
    };
    let logs = if loud { listing::of(&run.world.history) } else { Vec::new() };
    Err(Failure { code, what, trace: run.world.trace.last_lines(40).cloned().collect(), logs })
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// Runs a seed twice: both runs must leave the same trace.
pub fn twice(seed: u64, scenario: Scenario, loud: bool) -> Result<Good, Failure> {
    let first = once(seed, scenario, loud)?;
    let second = once(seed, scenario, false)?;
    if first.hash != second.hash {
        let what = format!("two runs left different traces, {} and {}", first.hash, second.hash);
        return Err(Failure { code: 129, what, trace: Vec::new(), logs: Vec::new() });
    }
    Ok(first)
}

/// The command that runs a seed again.
pub fn replay(seed: u64, scenario: &str) -> String {
    format!("cargo run -p dunlin-simulations -- --seed {seed} --scenario {scenario} --trace")
}
