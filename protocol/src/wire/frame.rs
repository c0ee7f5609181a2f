//! Frames: how values follow each other on a substream.
//!
//! ```text
//!  0               4         5                       4 + length
//!  +---------------+---------+-----------------------+
//!  | length, u32   | version | body: length - 1 bytes |
//!  | little-endian | 0x01    | one encoded value      |
//!  +---------------+---------+-----------------------+
//! ```
//!
//! A frame without a body is a sign of life. The header alone decides whether a body is read, so
//! nothing is allocated for a frame that is too long or of a version that is not known.

use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::FRAME_BYTES_MAX;
use crate::wire::codec::{self, CodecError};

/// The version of the framing itself; what is inside is agreed on by hello.
pub const FRAME_VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 5;

/// A frame that is not taken. The substream cannot be read on and is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is longer than the {max} bytes allowed here")]
    TooLong { bytes: usize, max: usize },
    #[error("a frame of length 0 has no room for its version")]
    Empty,
    #[error("frame version {0} is not known here (this node speaks {FRAME_VERSION}); update the older side")]
    Version(u8),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The header of a frame with a body of so many bytes.
pub fn header(body_bytes: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let too_long = FrameError::TooLong { bytes: body_bytes, max: FRAME_BYTES_MAX };
    if body_bytes > FRAME_BYTES_MAX {
        return Err(too_long);
    }
    let length = u32::try_from(body_bytes + 1).map_err(|_| too_long)?;
    let [a, b, c, d] = length.to_le_bytes();
    Ok([a, b, c, d, FRAME_VERSION])
}

/// The length of the body behind this header, at most `max` (and never above `FRAME_BYTES_MAX`).
pub fn body_bytes(header: [u8; HEADER_BYTES], max: usize) -> Result<usize, FrameError> {
    let [a, b, c, d, version] = header;
    let length = u32::from_le_bytes([a, b, c, d]);
    let bytes = length.checked_sub(1).ok_or(FrameError::Empty)?;
    if version != FRAME_VERSION {
        return Err(FrameError::Version(version));
    }
    let max = max.min(FRAME_BYTES_MAX);
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= max => Ok(bytes),
        _ => Err(FrameError::TooLong { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), max }),
    }
}

/// Appends one value's frame to what is to be written. Nothing is appended for a value that no frame holds.
pub fn seal<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    codec::encode_into(value, buffer);
    let body = buffer.len() - start - HEADER_BYTES;
    match (header(body), buffer.get_mut(start..start + HEADER_BYTES)) {
        (Ok(header), Some(place)) => {
            place.copy_from_slice(&header);
            Ok(())
        }
        (header, _) => {
            buffer.truncate(start);
            header.map(|_| ())
        }
    }
}

/// The value in a frame's body.
pub fn open<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(codec::decode(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_come_back() {
        let mut buffer = alloc::vec![9];
        seal(&(7u64, "seven"), &mut buffer).unwrap();
        let (head, body) = buffer[1..].split_at(HEADER_BYTES);
        assert_eq!(head, [8, 0, 0, 0, 1]);
        assert_eq!(body_bytes([8, 0, 0, 0, 1], 64), Ok(body.len()));
        assert_eq!(open::<(u64, alloc::string::String)>(body).unwrap().0, 7);
        let long = alloc::vec![0u8; FRAME_BYTES_MAX + 1];
        assert!(matches!(seal(&long, &mut buffer), Err(FrameError::TooLong { .. })));
        assert_eq!(buffer.len(), 1 + HEADER_BYTES + 7, "nothing of it is written");
    }

    #[test]
    fn refused_before_a_byte_of_the_body_is_read() {
        let long = FRAME_BYTES_MAX + 1;
        assert!(matches!(header(long), Err(FrameError::TooLong { .. })));
        assert!(matches!(body_bytes([255, 255, 255, 255, 1], usize::MAX), Err(FrameError::TooLong { .. })));
        assert_eq!(body_bytes([66, 0, 0, 0, 1], 64), Err(FrameError::TooLong { bytes: 65, max: 64 }));
        assert_eq!(body_bytes([1, 0, 0, 0, 2], 64), Err(FrameError::Version(2)));
        assert_eq!(body_bytes([0, 0, 0, 0, 1], 64), Err(FrameError::Empty));
    }
}
