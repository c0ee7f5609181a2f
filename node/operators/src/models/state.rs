//! A model as bytes: the version of its form, then the model.

use dunlin_protocol::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A model that can be kept.
pub trait Kept: Serialize + DeserializeOwned {
    /// Grows whenever the form of its bytes changes.
    const VERSION: u8;

    fn pack(&self) -> Vec<u8> {
        let body = codec::encode(self);
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(Self::VERSION);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// An error tells what the bytes are not. Nothing was taken from them.
    fn unpack(bytes: &[u8]) -> Result<Self, Unreadable> {
        match bytes.split_first() {
            Some((version, body)) if *version == Self::VERSION => {
                codec::decode(body).map_err(|error| Unreadable(error.to_string()))
            }
            Some((version, _)) => {
                Err(Unreadable(format!("version {version}, and this is {}", Self::VERSION)))
            }
            None => Err(Unreadable("nothing was written".to_string())),
        }
    }
}

/// Why a model could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model cannot be read ({0}): give the stage another name, so that it learns anew")]
pub struct Unreadable(String);

impl Unreadable {
    pub(crate) fn because(why: impl ToString) -> Unreadable {
        Unreadable(why.to_string())
    }
}
