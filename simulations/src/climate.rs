//! The weather of a world: how slow and how faulty its links, disks and functions are while faults
//! happen. `0` in a "one in so many" means never.

use dunlin_protocol::time::Span;

use crate::chance::Chance;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Climate {
    /// Most messages take up to this long; one in `stragglers` up to ten times that.
    pub latency_ms: u64,
    pub stragglers: u64,
    /// One in so many messages takes its link down with it.
    pub link_loss: u64,
    /// ... is lost, or comes twice, while its link stands.
    pub message_loss: u64,
    /// ... of those by gossip is lost for one of its readers, or comes twice.
    pub gossip_loss: u64,
    /// ... of those by gossip is broadcast by another node too, with other events.
    pub forged: u64,
    /// ... overtakes those before it.
    pub reorder: u64,
    /// ... comes as other bytes: it is refused, and its link dropped.
    pub corrupt: u64,
    /// A group sync takes up to this long; one in `slow_syncs` half a second.
    pub sync_ms: u64,
    pub slow_syncs: u64,
    /// One in so many syncs fails.
    pub failing_syncs: u64,
    /// Crashes take the machine's power too.
    pub power_loss: bool,
    /// A call takes up to this long; one in `slow_calls` three seconds.
    pub call_ms: u64,
    pub slow_calls: u64,
    /// One in so many calls of a guest traps, or is stopped at its limit.
    pub traps: u64,
    /// Clocks are off by up to this at each start, and run too fast or too slow by so many in 1000.
    pub clock_off_ms: u64,
    pub clock_drift: u64,
}

impl Climate {
    /// A good day: links and disks take their time, nothing fails.
    pub const FAIR: Climate = Climate {
        latency_ms: 6,
        stragglers: 20,
        link_loss: 0,
        message_loss: 0,
        gossip_loss: 0,
        forged: 0,
        reorder: 0,
        corrupt: 0,
        sync_ms: 4,
        slow_syncs: 0,
        failing_syncs: 0,
        power_loss: false,
        call_ms: 3,
        slow_calls: 0,
        traps: 0,
        clock_off_ms: 0,
        clock_drift: 0,
    };

    /// The faults end; what is slow stays slow.
    pub fn clear_up(&mut self) {
        self.link_loss = 0;
        self.message_loss = 0;
        self.gossip_loss = 0;
        self.forged = 0;
        self.reorder = 0;
        self.corrupt = 0;
        self.slow_syncs = 0;
        self.failing_syncs = 0;
        self.slow_calls = 0;
        self.traps = 0;
    }

    pub(crate) fn latency(&self, chance: &mut Chance) -> Span {
        let most = if chance.one_in(self.stragglers) { self.latency_ms * 10 } else { self.latency_ms };
        Span(chance.between(0, most))
    }

    pub(crate) fn sync(&self, chance: &mut Chance) -> Span {
        let most = if chance.one_in(self.slow_syncs) { 500 } else { self.sync_ms };
        Span(chance.between(0, most))
    }

    pub(crate) fn call(&self, chance: &mut Chance) -> Span {
        let most = if chance.one_in(self.slow_calls) { 3_000 } else { self.call_ms };
        Span(chance.between(0, most))
    }

    /// How far off a clock is, and how many of its milliseconds pass in 1000.
    pub(crate) fn clock(&self, chance: &mut Chance) -> (i64, u64) {
        let signed = |chance: &mut Chance, most: u64| {
            i64::try_from(chance.between(0, 2 * most)).unwrap_or(0) - i64::try_from(most).unwrap_or(0)
        };
        let off = signed(chance, self.clock_off_ms);
        (off, 1000u64.saturating_add_signed(signed(chance, self.clock_drift)))
    }
}
