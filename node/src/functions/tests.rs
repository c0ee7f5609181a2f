//! Real guests in the real sandbox.

mod guests;
mod hosted;
mod sandbox;
