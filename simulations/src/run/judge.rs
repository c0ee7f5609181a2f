//! The checkers that look at the world after the run.

use std::collections::BTreeSet;

use super::{Broken, Run};
use crate::checkers;
use crate::workload::acknowledged;

impl Run {
    /// Every property's checker. Returns how many events and actors they saw.
    pub(super) fn judge(&mut self) -> Result<(u64, u64), Broken> {
        let entered = match self.scenario.may_lose() {
            true => checkers::tail::check(&self.world).map_err(Broken::Promise)?,
            false => {
                checkers::kept::check(&self.world, &self.publishers).map_err(Broken::Promise)?;
                acknowledged(&self.publishers).into_keys().collect()
            }
        };
        // What entered on a node that was given up may be lost.
        let theirs = self.of_the_removed();
        let entered: BTreeSet<_> = entered.difference(&theirs).cloned().collect();
        let again: BTreeSet<_> = match self.scenario.may_lose() {
            true => checkers::tail::lost(self.world.history.lost.values().flatten())
                .union(&theirs)
                .cloned()
                .collect(),
            false => theirs,
        };
        let gone = checkers::tail::gone(&self.world, &again);
        let (twice, last) = match self.scenario.retention {
            "" => (self.tail("twice")?, self.tail("last")?),
            _ => {
                let read =
                    |stream| checkers::streams::in_history(&self.world, stream).map_err(Broken::Promise);
                (read("twice")?, read("last")?)
            }
        };
        let traps = self.scenario.climate.traps > 0;
        let letters =
            checkers::letters::check(&self.world, traps, &again, self.victim()).map_err(Broken::Promise)?;
        if self.moved > letters.moved && !self.scenario.may_lose() {
            return Err(Broken::Promise(format!(
                "{} letters were said to be moved, {} were",
                self.moved, letters.moved
            )));
        }
        let checkers::letters::Letters { dead, replayed, .. } = letters;
        // What is replayed comes behind what did not wait for it.
        let unordered = again.union(&replayed).cloned().collect();
        // What died in one of these stages does not come out behind them.
        let alive = |stages: &[&str]| -> BTreeSet<_> {
            let died = |number| {
                stages.iter().any(|stage| dead.get(*stage).is_some_and(|dead| dead.contains(number)))
            };
            entered.iter().filter(|number| !died(*number) && !gone.contains(*number)).cloned().collect()
        };
        // What had come out of the node that was given up, and its upstreams had let go of, is lost to others.
        let lost = match self.scenario.retention {
            "" => BTreeSet::new(),
            _ => self.out_of_the_removed(),
        };
        let alive = |stages: &[&str]| -> BTreeSet<_> { alive(stages).difference(&lost).cloned().collect() };
        // Both sides of a cut may have let the same share start anew.
        let of_twice = if self.is_given_up_twice() { every_event_of(&twice) } else { again.clone() };
        checkers::once::check(&twice, &alive(&["count"]), &of_twice).map_err(Broken::Promise)?;
        if !self.is_given_up_twice() {
            checkers::order::check(&twice, &unordered).map_err(Broken::Promise)?;
        }
        // What stages that started anew had given out before came again to those behind them.
        let again = if self.victim().is_some() { every_event_of(&last) } else { again };
        checkers::once::check(&last, &alive(&["count", "last"]), &again).map_err(Broken::Promise)?;
        checkers::writers::check(&self.world).map_err(Broken::Promise)?;
        let lossy = self.scenario.may_lose();
        checkers::watermark::check(&self.world, lossy).map_err(Broken::Promise)?;
        let actors = checkers::oracle::check(&self.world).map_err(Broken::Promise)?;
        Ok((entered.len() as u64, actors))
    }
}

fn every_event_of(events: &[dunlin_protocol::rpc::TailEvent]) -> BTreeSet<checkers::tail::Numbered> {
    events.iter().filter_map(|event| checkers::tail::number_of(&event.placed.event)).collect()
}
