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
    /// What was executed ahead of the journal is answered at once.
    AnswerAhead,
    /// A request that comes again is answered by what was executed ahead of the journal.
    AnswerAgainAhead,
    /// The op of a checkpoint is executed ahead of the journal.
    CheckpointAhead,
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
    /// A merge loses the last entry of a full block.
    MergeLosesEntry,
    /// A merge that is restored does not merge again what is beyond its last block.
    MergeForgetsProgress,
    /// A block is free as soon as it is released.
    ReuseReleasedAtOnce,
    /// The filter of a block of ids does not know the last of them.
    FilterWithoutLastId,
    /// A query does not find what the same op created before.
    QueryBeforeIndexing,
    /// The block of a table's tail is never released.
    KeepOldTails,
    /// A table's tail is written only once.
    StaleTail,
    /// The last record of a full block of a table is lost.
    LoseLastRecord,
    /// What is pushed again at open is not cut into bars.
    RestoreWithoutBars,
    /// Pages of blocks are taken as they are read.
    TrustPages,
    /// Whole blocks are taken as they are read.
    TrustBlocks,
    /// Pages stay in the cache when their block is written anew.
    KeepStalePages,
    /// A block is read although its write is not done.
    ReadBeforeWritten,
    /// The clock of bars and beats begins anew at open.
    ForgetClock,
    /// What a transfer left of its credit account is known to the cache only.
    ForgetHead,
    /// The primary commits what it alone has.
    CommitWithoutQuorum,
    /// A replica votes in a view that its superblock does not have yet.
    VoteBeforeDurable,
    /// A replica says of a damaged prepare that it never acknowledged it.
    NackLost,
    /// An op is dropped as soon as one replica never acknowledged it.
    DropOnOneNack,
    /// A prepare is acknowledged before its redundant header is durable.
    AcknowledgeWithoutHeader,
    /// A new primary takes requests before it has executed what its view began with.
    ServeBeforeExecuting,
    /// A primary goes by its own clock, whatever the others say.
    TrustOwnClock,
    /// A replica whose file was lost takes part at once.
    RecoverAtOnce,
    /// It denies what it has forgotten.
    DenyForgotten,
    /// A standby acknowledges what it has.
    StandbyAcknowledges,
    /// A standby tells its time of day.
    StandbyTellsTime,
    /// What is committed in a later view is taken as committed before its log is here.
    CommitAcrossViews,
    /// Of two prepares of one op, the one that is on the disk is taken for the log, whatever the header says.
    TakeOldCopy,
    /// All that is bad after the head counts as torn, however much it is.
    ExcuseAllDamage,
    /// Blocks of a checkpoint of another replica are taken for whole when it is given up, although some are not here.
    TrustMissing,
    /// A replica tells of a checkpoint whose blocks are not here yet.
    TellCheckpointEarly,
    /// A new view takes the longest log, not that of the newest log view.
    PreferLongerLog,
    /// A primary that cannot commit goes on to say that it is there.
    NeverGiveUp,
    /// A replica that misses its primary enters the next view without a quorum that asks for it.
    EnterViewAlone,
    /// Clients hear of views that have not started.
    TellUnstartedView,
    /// A replica that may have lost its head takes any start of its view.
    TakeStaleStart,
    /// A replica never thinks that it may have lost the end of its log.
    AlwaysCertain,
    /// Copies of the superblock are overwritten in the same order, whichever is not intact.
    CopiesInOrder,
    /// What is missing is asked for of the primary only.
    AskPrimaryOnly,
    /// What could not be read when a view became durable is never looked for again.
    ForgetUnread,
    /// A chain that is open at the end of its batch is taken as whole.
    LeaveChainsOpen,
    /// A copy of the superblock is believed to be the one that its index says, which no checksum covers.
    TrustCopyIndex,
    /// An answer that comes through the primary goes to whichever client asked first.
    AnswerAnybody,
    /// That an old prepare of another view comes late is taken for impossible.
    AssertOneView,
    /// A backup that does not come on never takes a checkpoint from the primary.
    LagForever,
    /// A prepare is taken whatever checkpoint it builds on.
    TrustCheckpointId,
    /// A data file is opened by a binary that does not have its release.
    OpenAnyRelease,
    /// Replicas hear only those whose binary has the same newest release.
    HearOwnReleaseOnly,
    /// A replica that has forgotten what it told of is heard, and goes on.
    TrustOlderCopy,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SkipDuplicateCheck,
        Self::AcknowledgeBeforeWrite,
        Self::AnswerAhead,
        Self::AnswerAgainAhead,
        Self::CheckpointAhead,
        Self::DropRuleK,
        Self::PostTwice,
        Self::LoseChainRollback,
        Self::TakeTornHead,
        Self::CheckpointBeforeBlocks,
        Self::ForgetReplies,
        Self::ReuseBlocksEarly,
        Self::FollowClockBack,
        Self::ForgetPulse,
        Self::MergeLosesEntry,
        Self::MergeForgetsProgress,
        Self::ReuseReleasedAtOnce,
        Self::FilterWithoutLastId,
        Self::QueryBeforeIndexing,
        Self::KeepOldTails,
        Self::StaleTail,
        Self::LoseLastRecord,
        Self::RestoreWithoutBars,
        Self::TrustPages,
        Self::TrustBlocks,
        Self::KeepStalePages,
        Self::ReadBeforeWritten,
        Self::ForgetClock,
        Self::ForgetHead,
        Self::LeaveChainsOpen,
    ];

    /// Those that show with several replicas only.
    pub const OF_CLUSTERS: &[Self] = &[
        Self::CommitWithoutQuorum,
        Self::VoteBeforeDurable,
        Self::NackLost,
        Self::DropOnOneNack,
        Self::AcknowledgeWithoutHeader,
        Self::ServeBeforeExecuting,
        Self::TrustOwnClock,
        Self::RecoverAtOnce,
        Self::AnswerAnybody,
        Self::AssertOneView,
        Self::LagForever,
        Self::StandbyAcknowledges,
        Self::StandbyTellsTime,
        Self::TrustMissing,
    ];

    /// Those that need a certain order of events, which a directed scenario has.
    pub const OF_SCENARIOS: &[Self] = &[
        Self::LeaveStaleCopies,
        Self::TakeOldCopy,
        Self::ExcuseAllDamage,
        Self::TellCheckpointEarly,
        Self::PreferLongerLog,
        Self::NeverGiveUp,
        Self::EnterViewAlone,
        Self::TellUnstartedView,
        Self::TakeStaleStart,
        Self::AlwaysCertain,
        Self::CopiesInOrder,
        Self::AskPrimaryOnly,
        Self::ForgetUnread,
        Self::TrustCopyIndex,
        Self::CommitAcrossViews,
        Self::TrustCheckpointId,
        Self::OpenAnyRelease,
        Self::HearOwnReleaseOnly,
        Self::TrustOlderCopy,
        Self::DenyForgotten,
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
