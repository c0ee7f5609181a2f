//! Dead letters, replayed and dropped while everything around breaks.

use dunlin_protocol::rpc::{FaultKind, LetterMove, Request, Response};

use super::{Run, name};

impl Run {
    /// All letters of the pipeline, asked of any node.
    pub(super) fn move_letters(&mut self, node: usize) {
        let does = if self.world.chance.one_in(4) { LetterMove::Drop } else { LetterMove::Replay };
        let request = Request::MoveLetters { pipeline: name("sim"), letter: None, does };
        let id = self.world.request(node, request);
        self.moving.insert(id);
    }

    /// Some nodes may not have been reached; what is said to be moved is.
    pub(super) fn on_letters_moved(&mut self, response: &Response) {
        match response {
            Response::LettersMoved(moved) => self.moved += moved.moved,
            Response::Failed(fault) => match fault.kind {
                FaultKind::Busy { .. } | FaultKind::Unavailable | FaultKind::Unknown => {
                    self.world.trace.line(self.world.now, format!("no letters are moved: {}", fault.detail));
                }
                FaultKind::Invalid | FaultKind::Conflict | FaultKind::NotYet | FaultKind::Storage => {
                    self.world.errors.push(format!("moving letters was refused: {}", fault.detail));
                }
            },
            other => self.world.errors.push(format!("moving letters was answered {other:?}")),
        }
    }
}
