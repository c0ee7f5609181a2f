//! One node's catalog log: signed by that node, checked by everybody, held by everybody.
//!
//! A record is taken in three steps: checked (it follows, its bytes are the canonical encoding, its
//! signature is the node's), handed out to be persisted, and folded once it stands on the disk.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use super::catalog::CatalogEntry;
use crate::id::{Epoch, Hash, NodeId, Position, Seq};
use crate::limits::{CATALOG_LOG_BYTES_MAX, NODES_MAX};
use crate::log::record::{Body, Record};
use crate::mutation::{Mutation, planted};
use crate::wire::codec;
use crate::wire::message::Head;

/// A catalog log has one epoch: it is adopted from its copies, never handed over.
pub const CATALOG_EPOCH: Epoch = Epoch(1);
const DOMAIN: &str = "dunlin catalog record 1";

/// Records of a catalog log that were refused. The catalog is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogFault {
    #[error(
        "record {seq} of the catalog log of node {node} is malformed ({why}) and was refused; \
         the node may run another version: upgrade this one"
    )]
    Malformed { node: NodeId, seq: u64, why: String },
    #[error(
        "record {seq} of the catalog log of node {node} does not carry that node's signature; it was refused"
    )]
    Forged { node: NodeId, seq: u64 },
    /// Both were signed: a proof. Said once per node.
    #[error(
        "node {node} signed two different catalog logs (at record {seq}: {kept} and {other}); the first one known is \
         kept: the node's data folder was probably copied or restored, give that node a new one"
    )]
    Equivocation { node: NodeId, seq: u64, kept: Hash, other: Hash },
    #[error(
        "the catalog already holds the logs of {NODES_MAX} nodes; that of {node} was refused: remove nodes that are gone"
    )]
    TooManyNodes { node: NodeId },
    #[error(
        "the catalog log of node {node} would exceed {CATALOG_LOG_BYTES_MAX} bytes; the record was refused: replace the \
         node by a new one"
    )]
    TooLong { node: NodeId },
    #[error("the catalog log of node {node} is damaged on this disk and is not written: {why}")]
    Barred { node: NodeId, why: String },
}

#[derive(Debug)]
pub(super) struct Chain {
    node: NodeId,
    records: Vec<Record>,
    /// The hash of each record.
    hashes: Vec<Hash>,
    bytes: usize,
    /// How many of `records` are on the disk.
    persisted: usize,
    /// The entries of the records behind `persisted`.
    pending: VecDeque<CatalogEntry>,
    equivocated: bool,
    barred: Option<Barred>,
}

/// The log is damaged on this node's disk: it is neither written nor given to others until somebody has given
/// what the disk had held of it.
#[derive(Debug, Clone)]
struct Barred {
    why: String,
    /// Where it ended on the disk, or, where its note cannot be read, where its own node says that it ends.
    end: Option<Head>,
    /// It is being written anew.
    mending: bool,
}

impl Chain {
    pub(super) fn new(node: NodeId) -> Chain {
        Chain {
            node,
            records: Vec::new(),
            hashes: Vec::new(),
            bytes: 0,
            persisted: 0,
            pending: VecDeque::new(),
            equivocated: false,
            barred: None,
        }
    }

    /// The end of what is checked, on the disk or on its way there.
    pub(super) fn end(&self) -> Position {
        match self.hashes.last() {
            None => Position::START,
            Some(hash) => Position { epoch: CATALOG_EPOCH, seq: Seq(self.records.len() as u64), hash: *hash },
        }
    }

    /// The end of what is on the disk: all that others are told and given.
    pub(super) fn head(&self) -> Head {
        let told = self.told() as u64;
        Head { seq: Seq(told), hash: self.hash_at(told).unwrap_or_default() }
    }

    /// How many records others may know of. Of a barred log what others gave of what the disk had held counts,
    /// too: it was told before, and the rest is given from there on.
    fn told(&self) -> usize {
        let early = self.barred.is_some() || planted(Mutation::TellCatalogEarly);
        if early { self.records.len() } else { self.persisted }
    }

    pub(super) fn barred(&self) -> Option<&str> {
        self.barred.as_ref().map(|barred| barred.why.as_str())
    }

    /// `noted`: where the log was synced last, if the disk can tell.
    pub(super) fn bar(&mut self, why: String, noted: Option<Position>) {
        let end = noted.map(|at| Head { seq: at.seq, hash: at.hash });
        let end = self.barred.take().and_then(|barred| barred.end).or(end);
        self.barred = Some(Barred { why, end, mending: false });
    }

    /// The log's own node says where it ends: of a barred one whose end nobody knows.
    pub(super) fn ends(&mut self, head: Head) {
        let held = self.records.len() as u64;
        if let Some(barred) = self.barred.as_mut().filter(|barred| barred.end.is_none()) {
            barred.end = Some(head).filter(|head| head.seq.0 >= held.max(1));
        }
    }

    /// All records of a barred log, once all that the disk had held are here: to be written anew.
    pub(super) fn mendable(&mut self) -> Option<Vec<Record>> {
        let barred = self.barred.as_ref().filter(|barred| !barred.mending)?;
        let end = barred.end?;
        if self.hash_at(end.seq.0) != Some(end.hash) {
            return None;
        }
        if let Some(barred) = &mut self.barred {
            barred.mending = true;
        }
        Some(self.records.clone())
    }

    /// Whether it is being written anew.
    pub(super) fn is_mending(&self) -> bool {
        self.barred.as_ref().is_some_and(|barred| barred.mending)
    }

    /// The disk did not take it; `mendable` gives it again.
    pub(super) fn not_mended(&mut self) {
        if let Some(barred) = &mut self.barred {
            barred.mending = false;
        }
    }

    /// The next record of one's own log.
    pub(super) fn append(&mut self, key: &SigningKey, entry: CatalogEntry) -> Result<Record, CatalogFault> {
        if let Some(why) = self.barred() {
            return Err(CatalogFault::Barred { node: self.node, why: why.to_string() });
        }
        let end = self.end();
        let signature = key.sign(&signed_bytes(self.node, end.seq.next(), end.hash, &entry));
        let body =
            Body::Catalog { entry: entry.clone(), signature: Bytes::copy_from_slice(&signature.to_bytes()) };
        let record = Record::after(end, CATALOG_EPOCH, &body);
        if self.bytes + weight(&record) > CATALOG_LOG_BYTES_MAX {
            return Err(CatalogFault::TooLong { node: self.node });
        }
        let hash = record.hash();
        self.push(record.clone(), hash, entry);
        Ok(record)
    }

    /// Takes what follows and is new; checks everything first, so a fault leaves the chain as it was.
    /// What is known already is passed over, a gap in front of the first takes nothing. Of a barred log it
    /// takes what the disk had held, and gives nothing: that is to be written all at once (`mendable`).
    pub(super) fn take(&mut self, records: Vec<Record>) -> Result<Vec<Record>, CatalogFault> {
        match &self.barred {
            None => self.load(records),
            Some(Barred { end: Some(end), mending: false, .. }) => {
                let end = *end;
                let held = |record: &Record| record.seq <= end.seq;
                let other = |record: &&Record| record.seq == end.seq && record.hash() != end.hash;
                if let Some(record) = records.iter().find(other) {
                    let hash = record.hash();
                    return self.on_fork(record, end.hash, hash);
                }
                self.load(records.into_iter().filter(held).collect())?;
                Ok(Vec::new())
            }
            Some(_) => Ok(Vec::new()),
        }
    }

    /// Takes records from the disk, or from others, whether or not the log is barred.
    pub(super) fn load(&mut self, records: Vec<Record>) -> Result<Vec<Record>, CatalogFault> {
        let mut end = self.end();
        let mut fresh = Vec::new();
        let mut bytes = self.bytes;
        for record in records {
            if record.epoch != CATALOG_EPOCH {
                return Err(self.malformed(&record, "its epoch is not 1"));
            }
            let hash = record.hash();
            if record.seq <= end.seq {
                match self.hash_at(record.seq.0) {
                    Some(kept) if kept != hash => return self.on_fork(&record, kept, hash),
                    Some(_) => continue,
                    None => return Err(self.malformed(&record, "the records are not in order")),
                }
            }
            if record.seq != end.seq.next() {
                break;
            }
            let entry = self.check(&record)?;
            if record.previous != end.hash {
                return self.on_fork(&record, end.hash, record.previous);
            }
            bytes += weight(&record);
            if bytes > CATALOG_LOG_BYTES_MAX {
                return Err(CatalogFault::TooLong { node: self.node });
            }
            end = Position { epoch: CATALOG_EPOCH, seq: record.seq, hash };
            fresh.push((record, hash, entry));
        }
        let mut taken = Vec::with_capacity(fresh.len());
        for (record, hash, entry) in fresh {
            taken.push(record.clone());
            self.push(record, hash, entry);
        }
        Ok(taken)
    }

    /// The entries that stand from now on, with their sequence numbers.
    pub(super) fn persisted(&mut self, seq: Seq) -> Vec<(Seq, CatalogEntry)> {
        let mut entries = Vec::new();
        while (self.persisted as u64) < seq.0 {
            let Some(entry) = self.pending.pop_front() else { break };
            self.persisted += 1;
            entries.push((Seq(self.persisted as u64), entry));
        }
        if self.is_mending() && self.persisted == self.records.len() {
            self.barred = None;
        }
        entries
    }

    /// Nothing from `seq` on stands on the disk. What was persisted before is not undone.
    pub(super) fn persist_failed(&mut self, seq: Seq) {
        let keep = (seq.0.saturating_sub(1) as usize).max(self.persisted);
        self.records.truncate(keep);
        self.hashes.truncate(keep);
        self.pending.truncate(keep.saturating_sub(self.persisted));
        self.bytes = self.records.iter().map(weight).sum();
    }

    /// What stands behind `their` head, about `bytes_max`, at least one record if there is one. From a
    /// head that is not ours the record at that place comes first: it proves the fork.
    pub(super) fn behind(&self, their: Head, bytes_max: usize) -> Vec<Record> {
        if self.barred.is_some() {
            return Vec::new();
        }
        let mut from = their.seq.0 as usize;
        if from > self.told() {
            return Vec::new();
        }
        if from > 0 && self.hash_at(their.seq.0) != Some(their.hash) {
            from -= 1;
        }
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in self.records.iter().take(self.told()).skip(from) {
            bytes += weight(record);
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }
        records
    }

    fn push(&mut self, record: Record, hash: Hash, entry: CatalogEntry) {
        self.bytes += weight(&record);
        self.records.push(record);
        self.hashes.push(hash);
        self.pending.push_back(entry);
    }

    fn hash_at(&self, seq: u64) -> Option<Hash> {
        self.hashes.get(usize::try_from(seq.checked_sub(1)?).ok()?).copied()
    }

    /// A record that contradicts what this node signed before; a proof only if it signed this one too.
    fn on_fork(&mut self, record: &Record, kept: Hash, other: Hash) -> Result<Vec<Record>, CatalogFault> {
        self.check(record)?;
        if self.equivocated {
            return Ok(Vec::new());
        }
        self.equivocated = true;
        Err(CatalogFault::Equivocation { node: self.node, seq: record.seq.0, kept, other })
    }

    fn check(&self, record: &Record) -> Result<CatalogEntry, CatalogFault> {
        let body = record.decode().map_err(|error| self.malformed(record, &error.to_string()))?;
        // One signature must not stand under two different hashes.
        if codec::encode(&body) != record.body {
            return Err(self.malformed(record, "its encoding is not the canonical one"));
        }
        let Body::Catalog { entry, signature } = body else {
            return Err(self.malformed(record, "it holds no catalog entry"));
        };
        let forged = || CatalogFault::Forged { node: self.node, seq: record.seq.0 };
        let key = VerifyingKey::from_bytes(&self.node.0).map_err(|_| forged())?;
        let signature = Signature::from_slice(&signature).map_err(|_| forged())?;
        let bytes = signed_bytes(self.node, record.seq, record.previous, &entry);
        key.verify_strict(&bytes, &signature).map_err(|_| forged())?;
        Ok(entry)
    }

    fn malformed(&self, record: &Record, why: &str) -> CatalogFault {
        CatalogFault::Malformed { node: self.node, seq: record.seq.0, why: why.to_string() }
    }
}

fn signed_bytes(node: NodeId, seq: Seq, previous: Hash, entry: &CatalogEntry) -> Bytes {
    codec::encode(&(DOMAIN, node, seq, previous, entry))
}

/// A record's bytes on a wire and in memory, roughly.
pub(super) fn weight(record: &Record) -> usize {
    record.body.len() + 48
}
