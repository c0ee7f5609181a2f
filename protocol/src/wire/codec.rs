//! The codec: the only file that names bincode. Fixed configuration (little-endian, varints), a
//! limit on every decode, and no bytes may be left over.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::FRAME_BYTES_MAX;

/// Bytes that are not one value of the expected type. Nothing was taken from them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("the bytes do not decode: {0}")]
    Malformed(alloc::string::String),
    #[error("{0} bytes are left over behind the value")]
    LeftOver(usize),
    #[error("{0} bytes are more than the limit of {FRAME_BYTES_MAX}")]
    TooLong(usize),
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>()
}

/// Encodes any of our own types. They have no failing serialisers, so this cannot fail.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = alloc::vec::Vec::new();
    encode_into(value, &mut bytes);
    Bytes::from(bytes)
}

/// The same, behind what stands in `buffer` already.
pub fn encode_into<T: Serialize>(value: &T, buffer: &mut alloc::vec::Vec<u8>) {
    #[expect(clippy::expect_used, reason = "our types serialise without failing: plain data, known lengths")]
    bincode::serde::encode_into_writer(value, Behind(buffer), bincode::config::standard())
        .expect("plain data encodes");
}

struct Behind<'a>(&'a mut alloc::vec::Vec<u8>);

impl bincode::enc::write::Writer for Behind<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Decodes exactly one value. Never allocates more than the limit, never panics on any bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_borrowed(bytes)
}

/// The same for a value that may hold parts of the bytes.
pub fn decode_borrowed<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let (value, rest) = decode_first(bytes)?;
    match rest.len() {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}

/// Decodes one value at the front, and gives what is left.
pub fn decode_first<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), CodecError> {
    use alloc::string::ToString;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, configuration())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    Ok((value, bytes.get(used..).unwrap_or_default()))
}
