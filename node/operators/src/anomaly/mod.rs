//! `anomaly`: how unusual each event is among the recent ones of its key, by the numbers that it carries.
//!
//! For every event [`Anomaly`] says a score by half-space trees (`models::half_space`: how few of the
//! window before lay where this one lies) and how likely a score of this size is among recent ones
//! (`tail`), then learns the event. Of a key nothing is judged until its first window is full.
//!
//! | file | what |
//! | --- | --- |
//! | `function` | the operator: batches in, scores out, and how they are spelled |
//! | `judge` | the trees of one key, with the scores that they gave lately |
//! | `journal` | keyed state: the judge at the beginning of its window, and the rows since |

mod function;
mod journal;
mod judge;

pub use function::Anomaly;
