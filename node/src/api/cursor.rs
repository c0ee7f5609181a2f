//! A cursor's text: base64url (RFC 4648, no padding) of its encoding.
//!
//! Every tailed event carries one and a stream of many shares makes it long, so the text must be
//! linear in its bytes: base58, which names nodes elsewhere, is quadratic.

use dunlin_protocol::rpc::Cursor;
use dunlin_protocol::wire::codec;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The text by which a client goes on behind an event.
pub fn to_text(cursor: &Cursor) -> String {
    let bytes = codec::encode(cursor);
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(DIGITS.get(index as usize).map_or('A', |digit| char::from(*digit)));
        }
    }
    text
}

/// The cursor that a text names; `None` when it is none of ours.
pub fn from_text(text: &str) -> Option<Cursor> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for digit in chunk {
            let value = DIGITS.iter().position(|known| known == digit)?;
            bits = bits << 6 | value as u32;
        }
        bits <<= 6 * (4 - chunk.len());
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend([a, b, c].into_iter().take(chunk.len().checked_sub(1).filter(|n| *n > 0)?));
    }
    codec::decode(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::id::{Epoch, Hash, LogId, Position, Seq};
    use dunlin_protocol::rpc::CursorAt;

    #[test]
    fn cursors_of_any_length_survive_their_text() {
        for logs in 0..7u8 {
            for index in [None, Some(3)] {
                let position =
                    Position { epoch: Epoch(2), seq: Seq(900 + u64::from(logs)), hash: Hash([logs; 16]) };
                let at = CursorAt { position, index };
                let cursor = Cursor((0..logs).map(|log| (LogId([log; 16]), at)).collect());
                assert_eq!(from_text(&to_text(&cursor)), Some(cursor));
            }
        }
        assert_eq!(from_text("not a cursor"), None);
        assert_eq!(from_text("A"), None);
        assert_eq!(from_text(""), None);
    }
}
