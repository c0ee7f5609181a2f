//! What a `learn` table asks for, checked.

use dunlin_protocol::pipeline::manifest::{F64, Label, LearnSpec};

use crate::spelling::nearest;

/// The experts, in the order of every list of predictions and weights.
pub const EXPERTS: [&str; 7] = ["last_value", "rls", "median", "classes", "lately", "tree", "forest"];
/// Those that speak only where `models` names them.
const BY_NAME: [&str; 2] = ["tree", "forest"];
pub const RLS: usize = 1;
pub const MEDIAN: usize = 2;
pub const CLASSES: usize = 3;
pub const LATELY: usize = 4;
pub const TREE: usize = 5;
pub const FOREST: usize = 6;

#[derive(Debug, Clone)]
pub struct Settings {
    pub label: Label,
    pub features: Option<Vec<String>>,
    pub active: [bool; EXPERTS.len()],
    pub coverage: f64,
    pub seed: u64,
}

impl Settings {
    pub fn of(spec: &LearnSpec) -> Result<Settings, String> {
        let coverage = spec.interval.map_or(0.9, |F64(share)| share);
        if !(coverage > 0.0 && coverage < 1.0) {
            return Err(format!(
                "interval = {coverage} is no coverage: write a number between 0 and 1, as 0.9"
            ));
        }
        let (target, hidden) = match &spec.label {
            Label::Later { target, rises_by, .. } => {
                if let Some(F64(by)) = rises_by
                    && !(by.is_finite() && *by >= 0.0)
                {
                    return Err(format!(
                        "rises_by = {by} is no rise: write a fraction of 0 or more, as 0.05"
                    ));
                }
                (target, None)
            }
            Label::SameRow { label, label_at } => (label, label_at.as_ref()),
        };
        let secret = |name: &&String| match &spec.label {
            Label::SameRow { label, .. } => *name == label || Some(*name) == hidden,
            Label::Later { .. } => false,
        };
        if let Some(leak) = spec.features.iter().flatten().find(secret) {
            return Err(format!(
                "the feature '{leak}' tells what is to be predicted from '{target}': leave it out of `features`"
            ));
        }
        let mut active = EXPERTS.map(|name| spec.models.is_none() && !BY_NAME.contains(&name));
        for model in spec.models.iter().flatten() {
            match EXPERTS.iter().zip(active.iter_mut()).find(|(name, _)| *name == model) {
                Some((_, slot)) => *slot = true,
                None => {
                    return Err(format!("there is no model '{model}': {}", nearest(model, EXPERTS)));
                }
            }
        }
        // The safety floor is always in the ensemble.
        if let Some(floor) = active.first_mut() {
            *floor = true;
        }
        Ok(Settings {
            label: spec.label.clone(),
            features: spec.features.clone(),
            active,
            coverage,
            seed: spec.seed,
        })
    }

    /// The fraction that counts as a rise, where a probability is asked for.
    pub fn rises_by(&self) -> Option<f64> {
        match &self.label {
            Label::Later { rises_by, .. } => rises_by.map(|F64(by)| by),
            Label::SameRow { .. } => None,
        }
    }

    pub fn is_later(&self) -> bool {
        matches!(self.label, Label::Later { .. })
    }
}
