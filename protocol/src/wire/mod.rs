//! What crosses a wire: hello, frames, messages between members, and the one codec.
//!
//! Every substream carries frames ([`frame`]). The first exchange on a connection is hello
//! ([`handshake`]); nothing else is served before it has passed. Encoded forms are pinned by the
//! golden bytes in `golden.rs`: when one changes, the wire version must change with it.

pub mod codec;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod handshake;
pub mod message;
pub mod parts;
pub mod token;
