//! The `anomaly` table.

use alloc::format;

use super::super::error::Problem;
use super::super::fields::Fields;
use super::super::manifest::AnomalySpec;
use super::plain;

/// Events of a key that the next ones are compared with, if the file does not say, and the bounds of that.
const WINDOW: u32 = 250;
const WINDOW_MIN: i128 = 20;
const WINDOW_MAX: i128 = 10_000;
/// Fields of one `anomaly` stage. Beyond: the file is refused.
const FEATURES_MAX: usize = 32;

pub(super) fn anomaly(fields: &Fields<'_>) -> Result<AnomalySpec, Problem> {
    let Some(table) = fields.table("anomaly")? else {
        return Err(fields.missing("anomaly", "anomaly = { … }"));
    };
    table.only(&["features", "window", "seed"], &[])?;
    let features = plain(table.texts("features", "features = [\"load\", \"temperature\"]")?);
    if let Some(names) = &features
        && names.len() > FEATURES_MAX
    {
        let reason =
            format!("features of {} names {} fields, more than {FEATURES_MAX}", table.what, names.len());
        return Err(Problem::new(table.key_place("features"), reason, "make it several stages"));
    }
    Ok(AnomalySpec {
        features,
        window: table.integer("window", WINDOW_MIN, WINDOW_MAX)?.map_or(WINDOW, |window| window as u32),
        seed: table.integer("seed", 0, u64::MAX.into())?.map_or(0, |seed| seed as u64),
    })
}
