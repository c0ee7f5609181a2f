//! `dunlin report`: what a learning stage said and what came true, as one HTML file that any browser opens.
//!
//! It reads the stage's predictions and scores as `tail` does, through any node, from the beginning of
//! what is kept to the present head. Memory is bounded whatever the length: sums by time in bins that
//! grow together, and samples drawn by hash. One stream gives one file, byte for byte: nothing depends
//! on the clock, on chance, or on the order in which shares arrive (but for the last digits of sums).
//! The file asks for nothing from elsewhere and has no scripts.
//!
//! | file | what |
//! | --- | --- |
//! | `command` | the streams of the stage in, the file out |
//! | `said` | an event of either stream as a prediction |
//! | `gathered`, `path` | everything that is shown, of all keys; the series of one key |
//! | `bins`, `sample` | what is kept of streams of any length |
//! | `scale`, `drawing` | ticks and figures; SVG |
//! | `page`, `figures` | the file; each drawing with how to read it |

mod bins;
mod command;
mod drawing;
mod figures;
mod gathered;
mod page;
mod path;
mod said;
mod sample;
mod scale;

pub use command::report;
pub use scale::{number, span};
