//! Bugs that the simulator plants, to show that it would find them.
//!
//! Outside the simulator `planted` is the constant `false`, so none of this is in a real binary.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// A repeated request is executed again.
    SkipDuplicateCheck,
    /// An op is executed and answered before its prepare is durable.
    AcknowledgeBeforeWrite,
    /// Recovery does not ask for every op between checkpoint and head (rule K).
    DropRuleK,
    /// Posting a pending transfer moves its amount twice.
    PostTwice,
    /// A failed chain keeps what its first events did.
    LoseChainRollback,
    /// A prepare whose body is torn is taken as written.
    TakeTornHead,
    /// The superblock names a checkpoint before its blocks are written.
    CheckpointBeforeBlocks,
    /// A stored reply is not written at a checkpoint.
    ForgetReplies,
    /// Blocks that a checkpoint releases are used again before it is durable.
    ReuseBlocksEarly,
    /// Recovery leaves superblock copies as they are that do not hold the newest.
    LeaveStaleCopies,
    /// Timestamps follow the wall clock when it steps back.
    FollowClockBack,
    /// Pending transfers never expire by themselves.
    ForgetPulse,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SkipDuplicateCheck,
        Self::AcknowledgeBeforeWrite,
        Self::DropRuleK,
        Self::PostTwice,
        Self::LoseChainRollback,
        Self::TakeTornHead,
        Self::CheckpointBeforeBlocks,
        Self::ForgetReplies,
        Self::ReuseBlocksEarly,
        Self::LeaveStaleCopies,
        Self::FollowClockBack,
        Self::ForgetPulse,
    ];
}

#[cfg(madsim)]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that runs on this thread, or removes it.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is planted.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(madsim)]
pub use switch::{plant, planted};

/// Whether `bug` is planted: never, outside the simulator.
#[cfg(not(madsim))]
#[must_use]
pub const fn planted(_bug: Bug) -> bool {
    false
}
