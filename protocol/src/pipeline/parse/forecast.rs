//! The `forecast` table.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::super::error::Problem;
use super::super::fields::Fields;
use super::super::manifest::{ForecastSpec, Horizon};
use super::super::quantity::span;
use super::super::tree::Tree;
use super::{LATER_LEARN, interval, plain};
use crate::time::Span;

/// Targets of one `forecast` stage, and how far it may look ahead: beyond, the file is refused.
const TARGETS_MAX: usize = 16;
const HORIZON_STEPS_MAX: u16 = 192;
const HORIZON_SPANS_MAX: usize = 16;

pub(super) fn forecast(fields: &Fields<'_>) -> Result<ForecastSpec, Problem> {
    let Some(table) = fields.table("forecast")? else {
        return Err(fields.missing("forecast", "forecast = { … }"));
    };
    let known = ["target", "horizon", "features", "models", "interval", "seed"];
    table.only(&known, &LATER_LEARN)?;
    let example = "target = \"load\", or target = [\"load\", \"temperature\"]";
    let targets = match table.get("target").map(|node| &node.value) {
        None => return Err(table.missing("target", example)),
        Some(Tree::Text(_)) => vec![table.need_text("target", example)?],
        Some(_) => plain(table.texts("target", example)?).unwrap_or_default(),
    };
    if targets.len() > TARGETS_MAX {
        let reason =
            format!("target of {} names {} fields, more than {TARGETS_MAX}", table.what, targets.len());
        return Err(Problem::new(table.key_place("target"), reason, "make it several stages"));
    }
    Ok(ForecastSpec {
        targets,
        horizon: horizon(&table)?,
        features: plain(table.texts("features", "features = [\"load\", \"temperature\"]")?),
        models: plain(table.texts("models", "models = [\"last_value\"]")?),
        interval: interval(&table)?,
        seed: table.integer("seed", 0, u64::MAX.into())?.map_or(0, |seed| seed as u64),
    })
}

fn horizon(table: &Fields<'_>) -> Result<Horizon, Problem> {
    let example = "horizon = 24, or horizon = [\"1h\", \"3d\"]";
    let Some(node) = table.get("horizon") else { return Err(table.missing("horizon", example)) };
    if let Tree::Integer(_) = node.value {
        let steps = table.integer("horizon", 1, HORIZON_STEPS_MAX.into())?.unwrap_or(1);
        return Ok(Horizon::Steps(steps as u16));
    }
    let mut spans = Vec::new();
    for (text, place) in table.texts("horizon", example)?.unwrap_or_default() {
        match span(&text) {
            Some(span) if span > Span(0) => spans.push(span),
            _ => {
                let reason = format!("'{text}' in horizon of {} is no length of time", table.what);
                return Err(Problem::new(place, reason, "write spans like horizon = [\"1h\", \"3d\"]"));
            }
        }
    }
    spans.sort();
    spans.dedup();
    if spans.len() > HORIZON_SPANS_MAX {
        let reason =
            format!("horizon of {} names {} spans, more than {HORIZON_SPANS_MAX}", table.what, spans.len());
        return Err(Problem::new(&node.place, reason, "make it several stages"));
    }
    Ok(Horizon::Spans(spans))
}
