//! Bugs that tests plant, to show that the simulator finds them.
//!
//! Compiled in only for tests: the feature `mutations` is never a default, only the simulator's
//! tests ask for it, and without `debug_assertions` (every release build) [`planted`] is the
//! constant `false` whatever the features say. Even where it is compiled in, nothing is planted
//! until [`plant`] is called, and then only on the calling thread.

/// One bug. Each names the rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A publisher is answered before its events are persisted.
    AcknowledgeEarly,
    /// Readers are served records that are not persisted yet.
    ServeEarly,
    /// A reader takes every batch, whether or not it follows on what it has.
    SkipPositionCheck,
    /// A source log appends what a producer repeats.
    ForgetProducers,
    /// A commit does not say how far its actor has read.
    FrontierStands,
    /// Keyed state takes a commit's changes before the commit is persisted.
    ApplyEarly,
    /// What actors and source logs remembered is not restored after a restart.
    ForgetReplay,
    /// A reader whose link broke reads from the start again.
    ReadFromStart,
    /// A writer sends whether or not its reader has granted credit.
    IgnoreCredit,
    /// A log's last record is persisted in the log's own durability class, not synced.
    LooseClose,
    /// A log that follows another takes over nothing of what that one remembered.
    ForgetFold,
    /// A log that follows another begins with empty keyed state.
    ForgetState,
    /// A reader follows the log that should be written, whether or not it has read those before it.
    PassEarly,
    /// Recovery does not sync what a crash left unsynced.
    TrustUnsynced,
    /// Recovery takes damage for a torn tail.
    CutDamage,
    /// A node serves although a catalog log is damaged on its disk.
    OpenThoughDamaged,
    /// An actor whose log was full at a restart is not told that its readers have passed.
    SleepWhenFull,
    /// A log takes more than its retention allows.
    NeverFull,
    /// Segments go before every reader has passed them.
    TruncateUnread,
    /// A restart goes on in the epoch before.
    ReuseEpoch,
    /// A commit's watermark is that of what it read, also when that is older.
    WatermarkBack,
    /// Later events of a key do not wait behind one that failed.
    OvertakeParked,
    /// Failed calls are not counted.
    ParkForever,
    /// Members that are taken for gone are not told that this node is here.
    StayGone,
    /// A question for modules is asked once.
    AskModulesOnce,
    /// An idle mark is due by the clock of the process that made the last append.
    IdleByOldClock,
    /// Catalog records are told and given to others before they are persisted.
    TellCatalogEarly,
    /// Logs of a node that was given up are waited for.
    AwaitTheRemoved,
    /// A node that was given up is listened to.
    HearTheRemoved,
    /// A tap joins any hub of its log, wherever that stands.
    JoinAnywhere,
    /// A tap that falls off its hub's window goes on with what is left there.
    ForgetTheFallen,
    /// A data folder that is older than what was read of it is trusted.
    TrustOldCopy,
    /// Segments go before the log's floor is raised over them: a lost one looks the same.
    ForgetFloor,
    /// What comes by gossip is taken whoever signed it.
    TakeFromAnyone,
    /// What comes by gossip is taken whether or not it follows on what was read.
    TakeOverGaps,
}

/// All of them.
pub const MUTATIONS: &[Mutation] = &[
    Mutation::AcknowledgeEarly,
    Mutation::ServeEarly,
    Mutation::SkipPositionCheck,
    Mutation::ForgetProducers,
    Mutation::FrontierStands,
    Mutation::ApplyEarly,
    Mutation::ForgetReplay,
    Mutation::ReadFromStart,
    Mutation::IgnoreCredit,
    Mutation::LooseClose,
    Mutation::ForgetFold,
    Mutation::ForgetState,
    Mutation::PassEarly,
    Mutation::TrustUnsynced,
    Mutation::CutDamage,
    Mutation::OpenThoughDamaged,
    Mutation::SleepWhenFull,
    Mutation::NeverFull,
    Mutation::TruncateUnread,
    Mutation::ReuseEpoch,
    Mutation::WatermarkBack,
    Mutation::OvertakeParked,
    Mutation::ParkForever,
    Mutation::StayGone,
    Mutation::AskModulesOnce,
    Mutation::IdleByOldClock,
    Mutation::TellCatalogEarly,
    Mutation::AwaitTheRemoved,
    Mutation::HearTheRemoved,
    Mutation::JoinAnywhere,
    Mutation::ForgetTheFallen,
    Mutation::TrustOldCopy,
    Mutation::ForgetFloor,
    Mutation::TakeFromAnyone,
    Mutation::TakeOverGaps,
];

#[cfg(all(feature = "mutations", debug_assertions))]
mod bed {
    extern crate std;

    use core::cell::Cell;

    use super::Mutation;

    std::thread_local! {
        static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Plants one bug on this thread, in place of the one before; `None` for none.
    pub fn plant(mutation: Option<Mutation>) {
        PLANTED.set(mutation);
    }

    pub(crate) fn planted(mutation: Mutation) -> bool {
        PLANTED.get() == Some(mutation)
    }
}

#[cfg(not(all(feature = "mutations", debug_assertions)))]
mod bed {
    use super::Mutation;

    #[inline(always)]
    pub(crate) const fn planted(_: Mutation) -> bool {
        false
    }
}

#[cfg(all(feature = "mutations", debug_assertions))]
pub use bed::plant;
pub(crate) use bed::planted;
