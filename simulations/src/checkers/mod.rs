//! What must hold, one property a file. Each is a function of the world after a run; `Err` is the
//! sentence that names what is broken. `credit` watches while the run goes on.

pub mod bounded;
pub mod credit;
pub mod kept;
pub mod once;
pub mod oracle;
pub mod order;
pub mod removed;
pub mod streams;
pub mod tail;
