//! The revisions of one pipeline: which of them stands.
//!
//! Every revision (a removal too) names the one that it follows, so they form a tree. No clock
//! decides: of two that follow the same one, the one with the longer chain behind it wins, then the
//! larger digest. The tree is a set, so the order of arrival changes nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::catalog::{CatalogRef, Deployed, Revision};
use crate::id::Digest;
use crate::pipeline::plan::UnitId;
use crate::wire::codec;

/// A revision and the catalog record that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub revision: Arc<Revision>,
    pub reference: CatalogRef,
    /// Of this record: what the next revision names as its `previous`.
    pub digest: Digest,
}

/// What stands of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub revision: Arc<Revision>,
    pub reference: CatalogRef,
    pub digest: Digest,
    /// The winners before this one, since the last removal, oldest first.
    pub earlier: Vec<Known>,
    /// Revisions beside the winning chain, since its last removal: their logs stop, and the
    /// winner reads their source logs.
    pub superseded: Vec<Known>,
}

impl Current {
    /// What runs; `None` after a removal.
    pub fn deployed(&self) -> Option<&Deployed> {
        self.revision.content.as_ref()
    }

    /// The catalog record that bore this unit's logs.
    pub fn birth(&self, unit: &UnitId) -> CatalogRef {
        birth(&self.revision, self.reference, unit)
    }
}

impl Known {
    pub fn birth(&self, unit: &UnitId) -> CatalogRef {
        birth(&self.revision, self.reference, unit)
    }
}

fn birth(revision: &Revision, reference: CatalogRef, unit: &UnitId) -> CatalogRef {
    revision.content.as_ref().and_then(|content| content.births.get(unit)).copied().unwrap_or(reference)
}

/// Names one revision for good: two records with the same words are two revisions.
pub fn revision_digest(revision: &Revision, reference: CatalogRef) -> Digest {
    Digest::of(&codec::encode(&("dunlin revision 1", reference, revision)))
}

#[derive(Debug, Clone, Default)]
pub(super) struct Lineage {
    revisions: BTreeMap<Digest, Known>,
    followers: BTreeMap<Option<Digest>, BTreeSet<Digest>>,
}

impl Lineage {
    pub(super) fn insert(&mut self, reference: CatalogRef, revision: Revision) {
        let digest = revision_digest(&revision, reference);
        self.followers.entry(revision.previous).or_default().insert(digest);
        self.revisions.insert(digest, Known { revision: Arc::new(revision), reference, digest });
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Known> {
        self.revisions.get(digest)
    }

    pub(super) fn holds(&self, record: CatalogRef) -> bool {
        self.connected().iter().any(|known| known.reference == record)
    }

    /// The end of the winning chain; `None` while nothing hangs together from the first revision on.
    pub(super) fn current(&self) -> Option<Current> {
        let order = self.connected();
        let lengths = self.lengths(&order);
        let mut path: Vec<&Known> = Vec::new();
        let mut at = None;
        while let Some(next) = self.follow(at).max_by_key(|known| (lengths.get(&known.digest), known.digest))
        {
            path.push(next);
            at = Some(next);
        }
        let tip = at?;
        let winners: BTreeSet<Digest> = path.iter().map(|known| known.digest).collect();
        let removed = path.iter().rev().find(|known| known.revision.content.is_none());
        let since = removed.map(|known| known.revision.height);
        let superseded = order
            .iter()
            .filter(|known| !winners.contains(&known.digest))
            .filter(|known| self.fork_height(known, &winners) >= since)
            .map(|known| Known::clone(known))
            .collect();
        let earlier = path
            .iter()
            .filter(|known| known.digest != tip.digest && Some(known.revision.height) > since)
            .map(|known| Known::clone(known))
            .collect();
        Some(Current {
            revision: tip.revision.clone(),
            reference: tip.reference,
            digest: tip.digest,
            earlier,
            superseded,
        })
    }

    /// The valid followers of a revision, or the first revisions: each stands one higher.
    fn follow<'a>(&'a self, known: Option<&Known>) -> impl Iterator<Item = &'a Known> {
        let height = known.map_or(0, |known| known.revision.height.saturating_add(1));
        self.followers
            .get(&known.map(|known| known.digest))
            .into_iter()
            .flatten()
            .filter_map(|digest| self.revisions.get(digest))
            .filter(move |known| known.revision.height == height)
    }

    /// All revisions that hang together with a first one, each after the one that it follows.
    fn connected(&self) -> Vec<&Known> {
        let mut order: Vec<&Known> = self.follow(None).collect();
        let mut next = 0;
        while let Some(known) = order.get(next).copied() {
            order.extend(self.follow(Some(known)));
            next += 1;
        }
        order
    }

    /// The height that the longest chain through each revision reaches.
    fn lengths(&self, order: &[&Known]) -> BTreeMap<Digest, u64> {
        let mut lengths: BTreeMap<Digest, u64> = BTreeMap::new();
        for known in order.iter().rev() {
            let own = known.revision.height;
            let length = *lengths.entry(known.digest).and_modify(|l| *l = own.max(*l)).or_insert(own);
            if let Some(previous) = known.revision.previous {
                lengths.entry(previous).and_modify(|l| *l = length.max(*l)).or_insert(length);
            }
        }
        lengths
    }

    /// The height of the winner from which this loser's chain departs; `None`: from the beginning.
    fn fork_height(&self, loser: &Known, winners: &BTreeSet<Digest>) -> Option<u64> {
        let mut at = loser;
        while let Some(previous) = at.revision.previous.and_then(|digest| self.revisions.get(&digest)) {
            if winners.contains(&previous.digest) {
                return Some(previous.revision.height);
            }
            at = previous;
        }
        None
    }
}
