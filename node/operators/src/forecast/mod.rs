//! `forecast`: where series go from here, learned from the same events that are forecast.
//!
//! For every event [`Forecast`] first settles the forecasts whose outcome it brings (each is scored as
//! it was made, then learned from), then forecasts each target for every horizon. A forecast waits in
//! the key's model until its outcome has come, so nothing is ever learned early.
//!
//! | file | what |
//! | --- | --- |
//! | `function`, `payload` | the operator: batches in, forecasts and scores out; how they are spelled |
//! | `journal` | keyed state: a snapshot now and then and the rows since |
//! | `model`, `track` | all of a key; one target of it: its experts, their combination, what waits |
//! | `past`, `scale`, `season`, `fields` | recent values, their size, the calendar period, other numbers |
//! | `rls`, `holt_winters` | recursive least squares for all horizons; level and season |
//! | `nets` | networks that remember |
//! | `hedge`, `guard` | weights of the experts; when the naive line is safer |
//! | `band`, `scores` | intervals, metrics |
//!
//! A stage has a model per key. What is forecast are changes from the last value, in units of the
//! series, so whatever its size, "it stays" is where everything begins.

mod band;
mod fields;
mod function;
mod guard;
mod hedge;
mod holt_winters;
mod journal;
mod model;
mod nets;
mod origin;
mod past;
mod payload;
mod rls;
mod scale;
mod scores;
mod season;
mod settings;
mod track;

pub use function::Forecast;
pub use rls::Rls;
