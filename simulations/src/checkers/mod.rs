//! What must hold, one property a file. Each is a function of the world after a run; `Err` is the
//! sentence that names what is broken.

pub mod kept;
pub mod once;
pub mod oracle;
pub mod order;
