//! The floor of a log: its first record that must still be there. It is raised, and synced, before
//! retention removes what lies below it, so a segment that is missing above it was not let go: it was lost.
//!
//! One small file, put in place whole. A log from before there were floors has none until retention comes
//! by; whatever a snapshot covers may be missing from its front.
//!
//! ```text
//! 56 bytes; integers little-endian
//!  0        8                24         32               56
//! +--------+----------------+----------+----------------+
//! | magic  | log id         | first    | check          |
//! |        | 16             | u64      | 24, blake3     |
//! +--------+----------------+----------+----------------+
//! ```

use super::bytes_in::{BytesIn, check};
use crate::id::{LogId, Seq};

pub const MAGIC: [u8; 8] = *b"dunlflr1";
pub const FLOOR_BYTES: usize = 56;

/// The floor file's bytes.
pub fn encode(log: LogId, first: Seq) -> [u8; FLOOR_BYTES] {
    let mut bytes = [0; FLOOR_BYTES];
    let (covered, checked) = bytes.split_at_mut(FLOOR_BYTES - 24);
    let parts = MAGIC.iter().chain(&log.0).copied().chain(first.0.to_le_bytes());
    covered.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    checked.copy_from_slice(&check::<24>(&[covered]));
    bytes
}

/// What a floor file says. None: it is not whole, or another log's; the log is as one without a floor.
pub fn decode(log: LogId, bytes: &[u8]) -> Option<Seq> {
    let (covered, checked) = bytes.split_last_chunk::<24>()?;
    if covered.len() != FLOOR_BYTES - 24 || check::<24>(&[covered]) != *checked {
        return None;
    }
    let mut fields = BytesIn::new(covered);
    let right = fields.array() == Some(MAGIC) && fields.array() == Some(log.0);
    fields.u64().filter(|_| right).map(Seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: LogId = LogId([7; 16]);

    #[test]
    fn floor_comes_back() {
        let bytes = encode(LOG, Seq(4711));
        assert_eq!(decode(LOG, &bytes), Some(Seq(4711)));
        assert_eq!(decode(LogId([8; 16]), &bytes), None, "another log's");
        assert_eq!(decode(LOG, &bytes[..FLOOR_BYTES - 1]), None);
        assert_eq!(decode(LOG, &[]), None);
    }

    proptest! {
        #[test]
        fn flipped_bit_never_invents_a_floor(bit in 0..FLOOR_BYTES * 8) {
            let mut bytes = encode(LOG, Seq(4711));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(LOG, &bytes), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(LOG, &bytes), None);
        }
    }
}
