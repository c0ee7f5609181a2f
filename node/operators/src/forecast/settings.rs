//! What a `forecast` table asks for, checked.

use dunlin_protocol::pipeline::manifest::{F64, ForecastSpec, Horizon};

use super::fields::{FIELDS_MAX, PER_FIELD};
use super::hedge::{EXPERTS, FAMILIES, MEMORIES};
use super::nets::{NUMBERS, SEES};
use super::season::STEPS_MAX;
use super::track::INPUTS;
use crate::spelling::nearest;

#[derive(Debug, Clone)]
pub struct Settings {
    pub targets: Vec<String>,
    pub horizon: Horizon,
    /// Fields beside the targets; none: every number of a key's first event.
    pub features: Option<Vec<String>>,
    pub active: [bool; EXPERTS],
    pub coverage: f64,
    pub seed: u64,
}

impl Settings {
    pub fn of(spec: &ForecastSpec) -> Result<Settings, String> {
        let coverage = spec.interval.map_or(0.9, |F64(share)| share);
        if !(coverage > 0.0 && coverage < 1.0) {
            return Err(format!(
                "interval = {coverage} is no coverage: write a number between 0 and 1, as 0.9"
            ));
        }
        let mut active = [spec.models.is_none(); EXPERTS];
        for model in spec.models.iter().flatten() {
            let mut first = 0;
            let mut known = false;
            for (name, experts) in FAMILIES {
                if name == model {
                    active.iter_mut().skip(first).take(experts).for_each(|on| *on = true);
                    known = true;
                }
                first += experts;
            }
            if !known {
                let names = FAMILIES.map(|(name, _)| name);
                return Err(format!("there is no model '{model}': {}", nearest(model, names)));
            }
        }
        // The safety floor is always in the ensemble.
        let floor: usize = FAMILIES.iter().take(3).map(|(_, experts)| experts).sum();
        active.iter_mut().take(floor).for_each(|on| *on = true);
        Ok(Settings {
            targets: spec.targets.clone(),
            horizon: spec.horizon.clone(),
            features: spec.features.clone(),
            active,
            coverage,
            seed: spec.seed,
        })
    }

    /// How many horizons each forecast has.
    pub fn horizons(&self) -> usize {
        match &self.horizon {
            Horizon::Steps(steps) => usize::from(*steps),
            Horizon::Spans(spans) => spans.len(),
        }
    }

    /// About how many numbers the model of a key holds.
    pub fn numbers(&self) -> usize {
        let horizons = self.horizons();
        let inputs = INPUTS + PER_FIELD * FIELDS_MAX;
        let lines = (MEMORIES.len() + 1) * (inputs * inputs / 2 + horizons * inputs);
        let nets = NUMBERS + horizons * SEES;
        let waiting = horizons * (horizons * (EXPERTS / 2 + 3) + (MEMORIES.len() + 2) * inputs + 2 * SEES);
        self.targets.len() * (lines + nets + waiting + 2 * STEPS_MAX)
    }
}
