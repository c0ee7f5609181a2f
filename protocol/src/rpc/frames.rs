//! The frames of `/dunlin/rpc/1`: calls and answers on one substream, told apart by their ids.
//!
//! The caller chooses ids, each once per substream. A module that is longer than one frame comes
//! in `Piece`s before its `PutModule` call, which carries the last piece.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::rpc::lines::{Lines, LinesTaken};
use crate::rpc::{Fault, Request, Response};

/// Bytes of a module in one frame.
pub const PIECE_BYTES: usize = 1 << 20;

/// From the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RpcIn {
    Call {
        id: u64,
        call: RpcCall,
    },
    /// Bytes of the module that call `id` will put. The door never sees it.
    Piece {
        id: u64,
        bytes: Bytes,
    },
    /// The tap of call `id` may be sent so many bytes more.
    Credit {
        id: u64,
        bytes: u64,
    },
    Cancel {
        id: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RpcCall {
    Request(Request),
    /// On the wire the last piece of the module; at the door the whole module.
    PutModule(Bytes),
    HasModule(Digest),
    /// Lines for a source, parsed by the node.
    Lines(Lines),
}

/// From the node that was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RpcOut {
    Answer {
        id: u64,
        response: Response,
        last: bool,
    },
    /// Answers `PutModule` and `HasModule`: whether this node holds the module.
    Module {
        id: u64,
        digest: Digest,
        held: bool,
    },
    /// Answers `Lines`.
    Lines {
        id: u64,
        outcome: Result<LinesTaken, Fault>,
    },
}
