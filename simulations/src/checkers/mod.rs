//! What must hold, one property a file. Each is a function of the world after a run; `Err` is the
//! sentence that names what is broken. `watch` and what it holds look on while the run goes on.

pub mod bounded;
pub mod converged;
pub mod credit;
pub mod deleted;
pub mod idle;
pub mod kept;
pub mod letters;
pub mod level;
pub mod once;
pub mod oracle;
pub mod order;
pub mod removed;
pub mod served;
pub mod streams;
pub mod tail;
pub mod watch;
pub mod watermark;
pub mod writers;
