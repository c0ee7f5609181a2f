//! What crosses a wire: messages between members, and the one codec.

pub mod codec;
pub mod message;
