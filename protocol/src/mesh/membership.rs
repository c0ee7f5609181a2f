//! Who is a member and who is alive: SWIM, by the `foca` crate, with values in and values out.
//!
//! A member is suspected when it answers no probe, direct or through others, and gone when it does
//! not refute that within a few seconds. A node that finds itself declared gone takes its next
//! generation and is seen alive again. Members are never forgotten.
//!
//! Two things heal what a cut or a clock has done. Who is connected and does not count as alive is told
//! again that we are here: after a long cut both sides took each other for gone, changed their
//! generation, and speak to nobody. And a node that is spoken to by a higher generation than its own was
//! started with a clock behind that of its start before: it takes the next one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use foca::{Config, Foca, Header, Identity, Member, NoCustomBroadcast, PeriodicParams, Runtime, State};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::NodeId;
use crate::limits::{NODES_MAX, SWIM_BYTES_MAX, SWIM_TIMERS_MAX};
use crate::mutation::{Mutation, planted};
pub use crate::rpc::Liveness;
use crate::time::Span;
use crate::wire::codec::{self, CodecError};

/// What membership wants done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshEffects {
    /// Datagrams (`Message::Swim`); each may be lost.
    pub sends: Vec<(NodeId, Bytes)>,
    /// Timers to set, by number (`Timer::Swim`).
    pub timers: Vec<(u64, Span)>,
    /// Members whose liveness is another than before this call.
    pub changed: Vec<(NodeId, Liveness)>,
}

/// A datagram that was refused. Membership goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SwimFault {
    #[error("a membership datagram does not decode: {0}")]
    Malformed(String),
    #[error("a membership datagram came in the name of {claimed} from another node")]
    WrongSender { claimed: NodeId },
    #[error("a membership datagram names more than the {NODES_MAX} members that a mesh may have")]
    TooMany,
    #[error("a membership datagram was refused: {0}")]
    Refused(String),
}

pub struct Membership {
    foca: Foca<Life, SwimCodec, ChaCha8Rng, NoCustomBroadcast>,
    timers: BTreeMap<u64, foca::Timer<Life>>,
    next_timer: u64,
    members: BTreeMap<NodeId, Liveness>,
    /// Connected members that are suspected, and for how many beats.
    suspects: BTreeMap<NodeId, u32>,
    sized_for: Size,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("members", &self.members).finish_non_exhaustive()
    }
}

/// A connected member is suspected for no longer than so many beats: longer than any suspicion lasts.
const SUSPECT_BEATS_MAX: u32 = 12;

/// Renewals fit behind each generation: what a running node renewed never beats its next start.
const RENEWALS: u64 = 1 << 16;

impl Membership {
    /// `generation` must be larger than at the node's start before (the time in ms will do).
    pub fn new(me: NodeId, generation: u64, seed: u64) -> Membership {
        let life = Life { node: me, generation: generation.saturating_mul(RENEWALS) };
        let sized_for = Size::Tens;
        Membership {
            foca: Foca::new(life, config(sized_for), ChaCha8Rng::seed_from_u64(seed), SwimCodec),
            timers: BTreeMap::new(),
            next_timer: 0,
            members: BTreeMap::new(),
            suspects: BTreeMap::new(),
            sized_for,
        }
    }

    /// All members but this node, the gone ones too.
    pub fn members(&self) -> &BTreeMap<NodeId, Liveness> {
        &self.members
    }

    /// A node that was never heard of is as gone as one that was.
    pub fn liveness(&self, node: &NodeId) -> Liveness {
        if *node == self.foca.identity().node {
            return Liveness::Alive;
        }
        self.members.get(node).copied().unwrap_or(Liveness::Gone)
    }

    /// A connection to this member stands: it is told that we are here and tells whom it knows. Harmless
    /// to repeat.
    pub fn on_connected(&mut self, node: NodeId, effects: &mut MeshEffects) {
        if node == self.foca.identity().node {
            return;
        }
        let known = self.foca.iter_membership_state().map(Member::id).find(|life| life.node == node);
        let to = known.cloned().unwrap_or(Life { node, generation: 0 });
        // An own datagram that does not encode would be a bug, and the next one heals it.
        let _ = self.step(effects, |foca, runtime| foca.announce(to, runtime));
    }

    /// On a beat: connected nodes that do not count as alive are told again that we are here.
    pub fn repeat<'a>(&mut self, connected: impl Iterator<Item = &'a NodeId>, effects: &mut MeshEffects) {
        let missing: Vec<NodeId> =
            connected.filter(|node| self.liveness(node) != Liveness::Alive).copied().collect();
        if planted(Mutation::StayGone) {
            return;
        }
        self.suspects.retain(|node, _| missing.contains(node));
        for node in missing {
            self.on_connected(node, effects);
            if self.liveness(&node) == Liveness::Suspect {
                self.on_suspected(node, effects);
            } else {
                self.suspects.remove(&node);
            }
        }
    }

    /// A suspicion that was forgotten (its deadline, or the news of it, went with a generation of this
    /// node) would never end: the suspect does not know of it. Taken for gone it is told so, and renews.
    fn on_suspected(&mut self, node: NodeId, effects: &mut MeshEffects) {
        let beats = self.suspects.entry(node).or_default();
        *beats += 1;
        if *beats <= SUSPECT_BEATS_MAX {
            return;
        }
        self.suspects.remove(&node);
        let suspect = self.foca.iter_membership_state().find(|member| member.id().node == node);
        let Some(suspect) = suspect else { return };
        let gone = Member::new(suspect.id().clone(), suspect.incarnation(), State::Down);
        let _ = self.step(effects, |foca, runtime| foca.apply_many(core::iter::once(gone), true, runtime));
    }

    /// A datagram from a member.
    pub fn on_swim(
        &mut self,
        from: NodeId,
        datagram: &[u8],
        effects: &mut MeshEffects,
    ) -> Result<(), SwimFault> {
        if let Some(generation) = self.check(from, datagram)?
            && let Some(life) = (Life { node: self.foca.identity().node, generation }).renew()
        {
            // The only fault is that it is the same identity, which it is not.
            let _ = self.step(effects, |foca, runtime| foca.change_identity(life, runtime));
        }
        self.step(effects, |foca, runtime| foca.handle_data(datagram, runtime))
            .map_err(|error| SwimFault::Refused(error.to_string()))
    }

    /// A timer went off. An unknown number (twice, or from before a restart) does nothing.
    pub fn on_timer(&mut self, number: u64, effects: &mut MeshEffects) {
        if let Some(timer) = self.timers.remove(&number) {
            // The only fault is a probe whose steps came late or out of order; the next probe begins anew.
            let _ = self.step(effects, |foca, runtime| foca.handle_timer(timer, runtime));
        }
    }

    /// The node stops by will: the others need not find out by probing.
    pub fn leave(&mut self, effects: &mut MeshEffects) {
        let _ = self.step(effects, |foca, runtime| foca.leave_cluster(runtime));
    }

    /// Refuses what foca would take but must not: a foreign name, more members than there may be. Gives
    /// this node's highest generation that the sender speaks of, if it is beyond the present one.
    fn check(&self, from: NodeId, mut datagram: &[u8]) -> Result<Option<u64>, SwimFault> {
        if datagram.len() > SWIM_BYTES_MAX {
            return Err(SwimFault::Malformed(CodecError::TooLong(datagram.len()).to_string()));
        }
        let malformed = |error: SwimCodecError| SwimFault::Malformed(error.to_string());
        let header: Header<Life> = take(&mut datagram).map_err(malformed)?;
        if header.src.node != from {
            return Err(SwimFault::WrongSender { claimed: header.src.node });
        }
        let me = self.foca.identity();
        let beyond = |life: &Life| (life.node == me.node).then_some(life.generation);
        let mut generation = beyond(&header.dst).unwrap_or(0);
        let mut new = BTreeSet::from([from]);
        if datagram.len() >= 2 {
            for _ in 0..datagram.get_u16() {
                let member: Member<Life> = take(&mut datagram).map_err(malformed)?;
                generation = generation.max(beyond(member.id()).unwrap_or(0));
                new.insert(member.id().node);
            }
        }
        new.retain(|node| !self.members.contains_key(node) && *node != me.node);
        let room = NODES_MAX.saturating_sub(self.members.len() + 1);
        match new.len() > room {
            true => Err(SwimFault::TooMany),
            false => Ok(Some(generation).filter(|generation| *generation > me.generation)),
        }
    }

    fn step(
        &mut self,
        effects: &mut MeshEffects,
        act: impl FnOnce(
            &mut Foca<Life, SwimCodec, ChaCha8Rng, NoCustomBroadcast>,
            &mut Collector<'_>,
        ) -> Result<(), foca::Error>,
    ) -> Result<(), foca::Error> {
        let mut collector = Collector { effects, timers: &mut self.timers, next_timer: &mut self.next_timer };
        let outcome = act(&mut self.foca, &mut collector);
        // A node that renewed because it was told that it is down stops probing, and begins again only with the
        // next news of others: two that renew at once would wait for each other.
        let _ = self.foca.apply_many(core::iter::empty(), false, &mut collector);
        self.compare(effects);
        outcome
    }

    /// Suspicion is not among foca's notifications, so what it knows now is compared with before.
    fn compare(&mut self, effects: &mut MeshEffects) {
        let me = self.foca.identity().node;
        for member in self.foca.iter_membership_state().filter(|member| member.id().node != me) {
            let now = match member.state() {
                State::Alive => Liveness::Alive,
                State::Suspect => Liveness::Suspect,
                State::Down => Liveness::Gone,
            };
            let node = member.id().node;
            let before = self.members.insert(node, now);
            if before.unwrap_or(Liveness::Gone) != now {
                effects.changed.push((node, now));
            }
        }
        let size = Size::of(self.foca.num_members());
        if size != self.sized_for && self.foca.set_config(config(size)).is_ok() {
            self.sized_for = size;
        }
    }
}

/// One life of a node: its identity and a generation that only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    node: NodeId,
    generation: u64,
}

impl Identity for Life {
    type Addr = NodeId;

    fn renew(&self) -> Option<Life> {
        Some(Life { node: self.node, generation: self.generation.checked_add(1)? })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Life) -> bool {
        self.generation > adversary.generation
    }
}

/// The orders of magnitude that change how long news travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Tens,
    Hundreds,
    More,
}

impl Size {
    fn of(active: usize) -> Size {
        match active {
            0..10 => Size::Tens,
            10..100 => Size::Hundreds,
            _ => Size::More,
        }
    }
}

fn config(size: Size) -> Config {
    let (transmissions, suspicion) = match size {
        Size::Tens => (5, 3),
        Size::Hundreds => (8, 5),
        Size::More => (12, 8),
    };
    let every = |seconds, members| {
        Some(PeriodicParams { frequency: Duration::from_secs(seconds), num_members: at_least_one(members) })
    };
    Config {
        probe_period: Duration::from_secs(1),
        probe_rtt: Duration::from_millis(400),
        num_indirect_probes: at_least_one(3),
        max_transmissions: NonZeroU8::new(transmissions).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: Duration::from_secs(suspicion),
        // A generation that only grows makes forgetting unnecessary.
        remove_down_after: None,
        max_packet_size: at_least_one(SWIM_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: every(30, 1),
        periodic_announce_to_down_members: every(5, 2),
        periodic_gossip: every(1, 2),
    }
}

fn at_least_one(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

/// Turns foca's calls into values.
struct Collector<'a> {
    effects: &'a mut MeshEffects,
    timers: &'a mut BTreeMap<u64, foca::Timer<Life>>,
    next_timer: &'a mut u64,
}

impl Runtime<Life> for Collector<'_> {
    fn notify(&mut self, _: foca::Notification<'_, Life>) {}

    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.effects.sends.push((to.node, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, timer: foca::Timer<Life>, after: Duration) {
        let deadline_of_a_suspect = matches!(timer, foca::Timer::ChangeSuspectToDown { .. });
        if deadline_of_a_suspect && self.timers.len() >= SWIM_TIMERS_MAX {
            return;
        }
        *self.next_timer += 1;
        self.timers.insert(*self.next_timer, timer);
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.effects.timers.push((*self.next_timer, Span(after)));
    }
}

/// Each item is a two-byte length (big-endian) and its encoding.
#[derive(Debug)]
struct SwimCodec;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum SwimCodecError {
    #[error("there is no room for the item")]
    NoRoom,
    #[error("an item is cut short")]
    Short,
    #[error(transparent)]
    Item(#[from] CodecError),
}

fn put<T: Serialize>(item: &T, mut buf: impl BufMut) -> Result<(), SwimCodecError> {
    let bytes = codec::encode(item);
    let length = u16::try_from(bytes.len()).map_err(|_| SwimCodecError::NoRoom)?;
    if buf.remaining_mut() < bytes.len() + 2 {
        return Err(SwimCodecError::NoRoom);
    }
    buf.put_u16(length);
    buf.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(mut buf: impl Buf) -> Result<T, SwimCodecError> {
    if buf.remaining() < 2 {
        return Err(SwimCodecError::Short);
    }
    let length = usize::from(buf.get_u16());
    let item = codec::decode(buf.chunk().get(..length).ok_or(SwimCodecError::Short)?)?;
    buf.advance(length);
    Ok(item)
}

impl foca::Codec<Life> for SwimCodec {
    type Error = SwimCodecError;

    fn encode_header(&mut self, header: &Header<Life>, buf: impl BufMut) -> Result<(), SwimCodecError> {
        put(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Life>, SwimCodecError> {
        take(buf)
    }

    fn encode_member(&mut self, member: &Member<Life>, buf: impl BufMut) -> Result<(), SwimCodecError> {
        put(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Life>, SwimCodecError> {
        take(buf)
    }
}

#[cfg(test)]
mod tests;
