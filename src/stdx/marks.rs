//! Coverage marks: branches that are rare, and that the simulator has to reach all the same.
//!
//! A test that passes says nothing of code that it never ran. So the places where a replica ignores,
//! waits, gives way, repairs or drops something are marked, and a run of the simulator reports which
//! marks it reached, and by what (`cargo vopr --marks`). Outside the simulator `mark` does nothing.

/// Defines the marks; the comment of each is what the report says of it.
macro_rules! marks {
    ($(#[doc = $shows:literal] $name:ident,)+) => {
        /// A branch that the simulator has to reach.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Mark {
            $(#[doc = $shows] $name,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What happens there.
            #[must_use]
            pub const fn shows(self) -> &'static str {
                match self {
                    $(Self::$name => $shows.trim_ascii(),)+
                }
            }
        }
    };
}

marks! {
    #[doc = "A prepare that was missing here came from another replica."]
    PrepareRepaired,
    #[doc = "A prepare that was missing is executed without being written first, by a replica that is far behind."]
    ExecutedUnwritten,
    #[doc = "A prepare came again, and is acknowledged again."]
    PrepareAgain,
    #[doc = "A prepare of a later view came."]
    PrepareOfLaterView,
    #[doc = "A prepare is kept until its turn in the log comes."]
    PrepareKept,
    #[doc = "A prepare came that is further ahead than a pipeline."]
    PrepareTooFar,
    #[doc = "A backup has no slot for the next op before its own checkpoint."]
    BackupAtLimit,
    #[doc = "A backup has no buffer for the next prepare."]
    BackupWithoutBuffer,
    #[doc = "A missing prepare came, and its slot is needed for another op."]
    RepairWithoutSlot,
    #[doc = "An acknowledgement came for another view."]
    AckOfOtherView,
    #[doc = "An acknowledgement came for a prepare that is not in the log."]
    AckOfOtherPrepare,
    #[doc = "A primary is heard again after it was not for long."]
    PrimaryHeardAgain,
    #[doc = "A heartbeat of an earlier view came."]
    HeartbeatOfOldView,
    #[doc = "A heartbeat came of a view that has not started here."]
    HeartbeatOfUnknownView,
    #[doc = "A heartbeat tells of ops that did not come."]
    HeartbeatTellsOfMore,
    #[doc = "A replica misses its primary before its own view is durable."]
    AskTooEarly,
    #[doc = "A replica hears of a later view from somebody who asks for the next."]
    EnterByAsk,
    #[doc = "A replica joins in when another one asks for the next view."]
    AskSeconded,
    #[doc = "A primary whose trouble is over does not ask for the next view any more."]
    AskTakenBack,
    #[doc = "A view became durable that was left meanwhile."]
    ViewOutrun,
    #[doc = "A backup that does not come on asks for the start of its view."]
    StuckAsks,
    #[doc = "A replica that may have lost the end of its log asks all others."]
    UncertainAsks,
    #[doc = "A replica that lost its file does not deny a prepare of its earlier life."]
    ForgottenNotDenied,
    #[doc = "A replica hears of a later view by a vote."]
    EnterByVote,
    #[doc = "A vote came for a view that has started."]
    VoteForRunningView,
    #[doc = "A view waits for more replicas to know its log."]
    ViewWaits,
    #[doc = "A primary to be that lacks blocks of its state gives way."]
    ForfeitWithoutState,
    #[doc = "A primary to be whose next op is in no journal any more gives way."]
    ForfeitBehindJournals,
    #[doc = "A new view drops a prepare that waits to be written."]
    WriteDropped,
    #[doc = "A new view drops a prepare that is durable here."]
    ReadyDropped,
    #[doc = "The start of an earlier view came."]
    StartOfOldView,
    #[doc = "The start of a view came while another checkpoint is on its way to the superblock."]
    StartWhileSyncing,
    #[doc = "A replica that lost its file hears the start of a view that is too low to join."]
    StartTooEarlyToJoin,
    #[doc = "The start of the view came that is at work here."]
    StartOfRunningView,
    #[doc = "The start of a view came again before its log was durable here."]
    StartOfInstalledView,
    #[doc = "A replica that may have lost the end of its log hears a start that is no answer."]
    StartWithoutNonce,
    #[doc = "A replica that may have lost the end of its log goes on in its view."]
    UncertainResumes,
    #[doc = "A replica that may have lost the end of its log denies what is of a later log view."]
    DeniedByOlderLogView,
    #[doc = "No voter has the end of what is committed."]
    VotesLackEnd,
    #[doc = "A hole in the longest log is filled from the log of another voter."]
    HoleFilled,
    #[doc = "Too many voters may have lost the end of their logs."]
    VotesUncertain,
    #[doc = "No voter knows an op that may be committed."]
    VotesHaveHole,
    #[doc = "A nack quorum drops the end of a log."]
    TailDropped,
    #[doc = "No voter has the body of an op that may be committed."]
    VotesLackBody,
    #[doc = "A replica goes on from the checkpoint of another one."]
    Syncs,
    #[doc = "A prepare that waits to be written is in the checkpoint that was taken."]
    SyncDropsWrite,
    #[doc = "A checkpoint that was to be taken was made here meanwhile."]
    SyncNeedless,
    #[doc = "A replica tells nobody of a checkpoint whose blocks are missing."]
    CheckpointNotTold,
    #[doc = "The redundant header of a whole prepare is written anew."]
    HeaderMended,
    #[doc = "The chain of headers does not reach what is executed."]
    HeadersAsked,
    #[doc = "A replica is asked for headers that it does not know."]
    HeadersNotKnown,
    #[doc = "Headers from another replica extend the chain."]
    HeadersTaken,
    #[doc = "A replica is asked for a prepare that it does not have."]
    PrepareNotHeld,
    #[doc = "A prepare is sent to another replica from memory."]
    OfferedFromMemory,
    #[doc = "A prepare is read from the journal for another replica."]
    OfferedFromJournal,
    #[doc = "A replica is asked for a reply that it does not have."]
    ReplyNotHeld,
    #[doc = "A reply that was missing here came from another replica."]
    ReplyRepaired,
    #[doc = "A prepare in the journal is found damaged."]
    PrepareDamaged,
    #[doc = "An op is executed whose clients are not waited for here."]
    ExecutedForOthers,
    #[doc = "An op was executed before its prepare was on stable storage."]
    ExecutedAhead,
    #[doc = "A client asks again for what is executed, but not on stable storage yet."]
    AskedAgainAhead,
    #[doc = "A prepare is not kept in memory until it is executed."]
    ReadAgainLater,
    #[doc = "A header became durable whose prepare is not in the log any more."]
    HeaderOfDropped,
    #[doc = "A client without a session asks whether it has one."]
    PingWithoutSession,
    #[doc = "A client asks for a session that it has not any more."]
    PingOfOldSession,
    #[doc = "A stored reply is not here, and others are asked for it."]
    ReplyAsked,
    #[doc = "Nobody has a stored reply, and its client is evicted."]
    ReplyGivenUp,
    #[doc = "A request comes again while it waits in the queue."]
    RequestQueuedTwice,
    #[doc = "A request comes again while it is in the pipeline."]
    RequestInFlightTwice,
    #[doc = "A request is dropped, since the queue is full or the replica shuts down."]
    QueueFull,
    #[doc = "A request is refused, since the file has no room for what it may add."]
    RefusedForRoom,
    #[doc = "A request comes that is older than the last one of its session."]
    RequestStale,
    #[doc = "A request comes for a session that was not executed here."]
    RequestOfFuture,
    #[doc = "A request comes of a client without a session."]
    RequestWithoutSession,
    #[doc = "A request comes of a session that the client registered anew."]
    RequestOfOldSession,
    #[doc = "A request comes of another release than its session."]
    RequestOfOtherRelease,
    #[doc = "A primary has as many ops under way as it may."]
    PipelineFull,
    #[doc = "A primary has no slot for the next op before a quorum has the next checkpoint."]
    PrimaryAtLimit,
    #[doc = "A primary has no buffer for the next op, since it executes too slowly."]
    PrimaryWithoutBuffer,
    #[doc = "A primary gives out no timestamp, since no quorum of clocks agrees."]
    PrimaryWithoutTime,
    #[doc = "Pending transfers expire without a request."]
    PulsePrepared,
    #[doc = "The time of day is not later than the last timestamp of the log."]
    ClockBehindLog,
    #[doc = "Not all requests that wait fit into one prepare."]
    PrepareFull,
    #[doc = "A backup has a later request of the same client."]
    RelayOfPast,
    #[doc = "A backup forgets the oldest request for a newer one."]
    RelaysFull,
    #[doc = "A backup passes requests on to the primary of another view."]
    RelayedAgain,
    #[doc = "A new primary takes requests that it had as a backup."]
    RelayTakenHere,
    #[doc = "A backup gives a request up that was not answered."]
    RelayTooOld,
    #[doc = "A new primary keeps a request until its view is executed."]
    ForwardKept,
    #[doc = "An answer came that nobody waits for at this backup."]
    AnswerTooLate,
    #[doc = "No quorum of clocks agrees on the time of day."]
    ClocksDisagree,
    #[doc = "A quorum of clocks agrees again after long."]
    ClocksAgreeAgain,
    #[doc = "A replica without a time of day hears nobody."]
    NobodyHeard,
    #[doc = "Another replica has a time of day, and this one has none."]
    AnotherHasTime,
    #[doc = "An answer came to a question of an earlier process."]
    PongForOther,
    #[doc = "An answer about the time of day took too long."]
    SampleUseless,
    #[doc = "The own clock was set, or the machine stood still."]
    ClockStepped,
    #[doc = "An answer about the time of day is too old."]
    SampleTooOld,
    #[doc = "The own clock is held at the edge of what others agree on."]
    ClockHeld,
    #[doc = "Two groups of clocks agree on times that are far from each other."]
    ClocksInGroups,
    #[doc = "A replica asks for a view that one whose file was lost can join."]
    ViewAskedToRecover,
    #[doc = "An answer came to a recovery that was begun again since."]
    AnswerOfEarlierLife,
    #[doc = "Others hear the replica speak whose file was lost."]
    OwnPlaceTaken,
    #[doc = "The view to join after a loss would have this replica as primary."]
    TargetOfOwn,
    #[doc = "A replica has all that was lost with its file."]
    RecoveredAll,
    #[doc = "A replica that has just started has to know first what others have heard of it."]
    VoteTooEarly,
    #[doc = "A replica tells of less than it did before: an older copy of its file, or a frame that was late."]
    ToldMoreBefore,
    #[doc = "A replica that was behind has what the others have."]
    CaughtUp,
    #[doc = "What was read makes no sense as a page: it is read again."]
    PageReadAgain,
    #[doc = "What was read makes no sense as a block: it is read again."]
    BlockReadAgain,
    #[doc = "What was read makes no sense as a prepare: it is read again."]
    PrepareReadAgain,
    #[doc = "What the scrubber read makes no sense as a block: it is read again."]
    ScrubReadAgain,
    #[doc = "What was read makes no sense as a stored reply: it is read again."]
    ReplyReadAgain,
    #[doc = "Headers of the journal make no sense at the start: they are read again."]
    HeadersReadAgain,
    #[doc = "A page that is needed is damaged."]
    PageDamaged,
    #[doc = "A block that is needed whole is damaged."]
    BlockDamaged,
    #[doc = "A block is read while it is being written."]
    ReadAwaitsWrite,
    #[doc = "As many blocks are being written as may be."]
    WritesFull,
    #[doc = "As many blocks are asked for as may be."]
    BlocksAskedMax,
    #[doc = "As many blocks are read for others as may be."]
    BlocksServedMax,
    #[doc = "A replica is asked for a block that it does not have whole."]
    BlockNotHeld,
    #[doc = "A block came that is not wanted, or not any more."]
    BlockNotWanted,
    #[doc = "A block that came is whole here already."]
    BlockWholeAlready,
    #[doc = "A block is whole again."]
    BlockRepaired,
    #[doc = "A sync waits for what is under way."]
    SyncWaits,
    #[doc = "Blocks of a checkpoint are not looked for any more: another was taken."]
    ContentGivenUp,
    #[doc = "A view and a checkpoint want the superblock at the same time."]
    SuperblockWaits,
    #[doc = "A copy of the superblock is found damaged when the next is written."]
    CopyRotted,
    #[doc = "Copies of the superblock differ at the start."]
    CopiesDiffer,
    #[doc = "The scrubber reads a block that the newest checkpoint does not have any more."]
    ScrubbedTooLate,
    #[doc = "The scrubber finds a damaged prepare."]
    ScrubbedPrepare,
    #[doc = "A block is found damaged or missing before anybody needs it."]
    ScrubbedBlock,
    #[doc = "The scrubber finds a damaged copy of the superblock."]
    ScrubbedCopy,
    #[doc = "A merge of runs on disk is under way at the start."]
    MergeRestored,
    #[doc = "A merge of runs in memory is under way at the start."]
    MergeOfMemoryRestored,
    #[doc = "What a merge had not written is merged again at the start."]
    MergedAgain,
    #[doc = "A merge takes all of one input, since no other has a key among them."]
    MergedWhole,
    #[doc = "The share of a merge needs more blocks than were there when it began."]
    ShareInSteps,
    #[doc = "A chain fails after events that succeeded."]
    ChainUndone,
    #[doc = "A chain fails at its first event."]
    ChainFailsFirst,
    #[doc = "A batch ends within a chain."]
    ChainOpen,
    #[doc = "A pending transfer that a failed chain resolved is pending again."]
    ResolutionUndone,
    #[doc = "A failed chain had an amount that needs more than 64 bits."]
    WideUndone,
    #[doc = "The last event of an account that is not in the cache is an expiry."]
    HeadIsExpiry,
    #[doc = "An entry of a prepare has no effect, since its session is gone."]
    EntryVoid,
    #[doc = "A checkpoint of another replica is taken in a view that was left meanwhile."]
    SyncOutrun,
    #[doc = "Recovery table, row 3: both copies of a slot are bad."]
    Row3,
    #[doc = "Recovery table, row 4: first fill torn, or damage."]
    Row4,
    #[doc = "Recovery table, row 5: append torn, or damage."]
    Row5,
    #[doc = "Recovery table, row 6: header bad, prepare empty."]
    Row6,
    #[doc = "Recovery table, row 6, one replica: header bad, prepare empty."]
    Row6Alone,
    #[doc = "Recovery table, row 7: header bad, newest prepare."]
    Row7,
    #[doc = "Recovery table, row 8: header bad, older prepare."]
    Row8,
    #[doc = "Recovery table, row 8, one replica: header bad, older prepare."]
    Row8Alone,
    #[doc = "Recovery table, row 10: header empty, prepare whole."]
    Row10,
    #[doc = "Recovery table, row 11: prepare lost."]
    Row11,
    #[doc = "Recovery table, row 13: two prepares of one op."]
    Row13,
    #[doc = "Recovery table, row 14: header older than the prepare."]
    Row14,
    #[doc = "Recovery table, row 15: prepare older than the header."]
    Row15,
    #[doc = "A journal may have lost the end of its log."]
    HeadUncertain,
    #[doc = "A torn append is told from damage."]
    TornExcused,
    #[doc = "The slot after the head is bad, and cannot be told from damage."]
    TornNotExcused,
}

/// Marks that were reached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Marks([u64; 4]);

const _: () = assert!(Mark::ALL.len() <= 256);

impl Marks {
    /// Adds one.
    pub const fn add(&mut self, mark: Mark) {
        self.0[mark as usize / 64] |= 1 << (mark as usize % 64);
    }

    /// Whether one is among them.
    #[must_use]
    pub const fn has(&self, mark: Mark) -> bool {
        self.0[mark as usize / 64] >> (mark as usize % 64) & 1 == 1
    }

    /// Adds all of others.
    pub fn add_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0) {
            *word |= other;
        }
    }
}

#[cfg(madsim)]
mod reached {
    use super::{Mark, Marks};
    use std::cell::Cell;

    thread_local! {
        static REACHED: Cell<Marks> = const { Cell::new(Marks([0; 4])) };
    }

    /// Notes that a branch was reached.
    pub fn mark(mark: Mark) {
        let mut reached = REACHED.get();
        reached.add(mark);
        REACHED.set(reached);
    }

    /// Whether this thread has reached it since [`take_marks`] was called last.
    #[must_use]
    pub fn has_reached(mark: Mark) -> bool {
        REACHED.get().has(mark)
    }

    /// What this thread has reached since this was asked last.
    #[must_use]
    pub fn take_marks() -> Marks {
        REACHED.take()
    }
}

#[cfg(madsim)]
pub use reached::{has_reached, mark, take_marks};

/// Notes that a branch was reached, in the simulator.
#[cfg(not(madsim))]
pub const fn mark(_mark: Mark) {}
