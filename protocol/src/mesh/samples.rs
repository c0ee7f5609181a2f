//! Small nodes, manifests and revisions for this folder's tests.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ed25519_dalek::SigningKey;

use super::catalog::{Catalog, Deployed, Revision};
use crate::id::{Digest, Name, NodeId};
use crate::pipeline::manifest::{Durability, Manifest, Retention};
use crate::pipeline::plan::{Chain, Head, Home, Role, Unit, UnitId};
use crate::time::Span;

pub(super) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

pub(super) fn catalog(n: u8) -> Catalog {
    Catalog::new(node(n), key(n))
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn manifest(pipeline: &str) -> Manifest {
    Manifest {
        name: name(pipeline),
        durability: Durability::Disk,
        copies: 1,
        retention: Retention::default(),
        sources: BTreeMap::new(),
        stages: BTreeMap::new(),
        sinks: BTreeMap::new(),
        placement: BTreeMap::new(),
    }
}

/// A first revision without any stage; `content` makes it differ from others.
pub(super) fn deployed(pipeline: &str, content: u8, taken_by: NodeId) -> Revision {
    let mut manifest = manifest(pipeline);
    manifest.retention.age = Span(u64::from(content));
    let content = Deployed {
        manifest,
        digest: Digest([content; 32]),
        placement: BTreeMap::new(),
        births: BTreeMap::new(),
        taken_by,
    };
    Revision { pipeline: name(pipeline), previous: None, height: 0, content: Some(content) }
}

pub(super) fn removal(pipeline: &str) -> Revision {
    Revision { pipeline: name(pipeline), previous: None, height: 0, content: None }
}

/// A stage's unit without inputs and steps.
pub(super) fn unit(stage: &str, home: Home) -> Unit {
    Unit {
        id: UnitId { role: Role::Stage, name: name(stage) },
        home,
        inputs: Vec::new(),
        chain: Chain { head: Head::None, steps: Vec::new(), outputs: Vec::new() },
    }
}
