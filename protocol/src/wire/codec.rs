//! The codec: the only file that names bincode. Fixed configuration (little-endian, varints), a
//! limit on every decode, and no bytes may be left over.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
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
    #[expect(clippy::expect_used, reason = "our types serialise without failing: plain data, known lengths")]
    let bytes =
        bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("plain data encodes");
    Bytes::from(bytes)
}

/// Decodes exactly one value. Never allocates more than the limit, never panics on any bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    use alloc::string::ToString;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let (value, used) = bincode::serde::decode_from_slice(bytes, configuration())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}
