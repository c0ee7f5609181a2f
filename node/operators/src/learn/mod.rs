//! `learn`: predictions inside the stream, from the first event on, learned from the same stream.
//!
//! For every event [`Learn`] first settles the predictions whose outcome this event brings (each is
//! scored as it was made, then learned from), then predicts. A prediction waits in keyed state until
//! its outcome may be known, so nothing is ever learned early.
//!
//! | file | what |
//! | --- | --- |
//! | `function` | the operator: batches in, predictions and scores out |
//! | `store`, `pages`, `keys`, `pack` | keyed state: layout and versions; what changed of the model; what is kept between batches; bytes |
//! | `row`, `series`, `record` | an event as numbers and tokens; a key's own path; the same for people |
//! | `model`, `prediction` | all experts of a share, their combination, what they learn; what waits |
//! | `rls`, `median`, `classes`, `cells` | recursive least squares, median line, classes of change |
//! | `anchor`, `moments` | what a label of the same row is measured from; running mean and deviation |
//! | `lately`, `traffic` | what was left over lately, by category; how many rows came lately, and their numbers |
//! | `trees` | trees and forests, where they are asked for |
//! | `hedge`, `guard` | weights of the experts; when the naive line is safer |
//! | `interval`, `scores` | honest intervals, running metrics |
//!
//! A stage has one model per share (all its keys teach it) and a series per key.

mod anchor;
mod cells;
mod classes;
mod function;
mod guard;
mod hedge;
mod interval;
mod keys;
mod lately;
mod median;
mod model;
mod moments;
pub(crate) mod pack;
mod pages;
mod payload;
mod prediction;
mod record;
mod rls;
mod row;
mod scores;
mod series;
mod settings;
mod store;
mod traffic;
mod trees;

pub use function::Learn;
pub(crate) use row::number;
pub(crate) use store::path_key;
