//! Why a replica cannot go on: each reason has its sentence and its exit status, which never change.

use crate::constants::{STANDBY_COUNT_MAX, release_text};
use storage_format::SuperblockError;
use storage_format::block::BlockError;

/// A reason to stop for good; the environment, not the code, has to change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FatalReason {
    /// The file is not one of ours, or of another layout, or beyond repair.
    #[error("{}", superblock_text(.0))]
    Superblock(SuperblockError),
    /// The file belongs to another cluster.
    #[error(
        "the data file belongs to cluster {found}, not {expected}: start it with the right file"
    )]
    Cluster {
        /// The cluster asked for.
        expected: u128,
        /// The cluster in the file.
        found: u128,
    },
    /// The file belongs to another replica.
    #[error(
        "the data file belongs to replica {found}, not {expected}: start it with the right file"
    )]
    Replica {
        /// The replica asked for.
        expected: u8,
        /// The replica in the file.
        found: u8,
    },
    /// There are not as many addresses as the cluster can have members.
    #[error(
        "the data file belongs to a cluster of {replicas} replicas, but {addresses} addresses were given: \
         write one for each replica, and after them one for each standby, of which there may be \
         {STANDBY_COUNT_MAX}"
    )]
    MemberCount {
        /// Addresses given.
        addresses: usize,
        /// Replicas in the file.
        replicas: u8,
    },
    /// The files of so many others name another number of replicas that they need none like this one.
    #[error(
        "the data file names {own} replicas, and those of the other members name {others}: with both, there \
         would be two ledgers at the same addresses. Start each member with a file that was formatted with \
         the right --replica-count"
    )]
    ReplicasOfOthers {
        /// Replicas that this file names.
        own: u8,
        /// Those that the files of the others name.
        others: u8,
    },
    /// There is no address for the standby.
    #[error(
        "the data file belongs to standby {standby} of a cluster of {replicas} replicas, but only \
         {addresses} addresses were given: write one for each replica and standby, in the order of their \
         indexes, from 0 to {standby} at least"
    )]
    StandbyAddress {
        /// Index in the file.
        standby: u8,
        /// Replicas in the file.
        replicas: u8,
        /// Addresses given.
        addresses: usize,
    },
    /// The file is shorter than its own superblock says.
    #[error(
        "the data file has {found} bytes but needs at least {expected}: it was cut off, restore it \
         from a copy that is whole"
    )]
    Size {
        /// Bytes that the zones before the grid need.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The log is at a release that only a newer binary has.
    #[error(
        "the ledger is at release {}, and this binary has none beyond {}: start the newer binary; the \
         data file is as it was",
        release_text(*.found),
        release_text(*.newest)
    )]
    ReleaseNewer {
        /// Release of the data file, or of its cluster.
        found: u32,
        /// The newest of this binary.
        newest: u32,
    },
    /// The log is at a release that only an older binary has.
    #[error(
        "the ledger is at release {}, and this binary has none before {}: start the older binary; the \
         data file is as it was",
        release_text(*.found),
        release_text(*.oldest)
    )]
    ReleaseOlder {
        /// Release of the data file, or of its cluster.
        found: u32,
        /// The oldest of this binary.
        oldest: u32,
    },
    /// The file was formatted at another release than those of the other replicas.
    #[error(
        "the data file is at release {}, and the other replicas are at {}: it was formatted by another \
         binary than theirs; use the right file, or make another one: for a replica with `daftari recover`, \
         for a standby with `daftari format --standby`",
        release_text(*.own),
        release_text(*.others)
    )]
    ReleaseOfOthers {
        /// Release of the data file.
        own: u32,
        /// Release of the other replicas.
        others: u32,
    },
    /// A journal slot that may hold an acknowledged op cannot be read.
    #[error(
        "journal slot {slot} is damaged and may hold an acknowledged op (table row {row}): with one \
         replica there is no copy to repair it from, restore the data file from a backup"
    )]
    JournalSlot {
        /// The slot.
        slot: u64,
        /// Row of the recovery table, or 0 for the contiguity check.
        row: u8,
    },
    /// An op between the checkpoint and the head is missing or not connected.
    #[error(
        "the journal has no intact prepare for op {op}, which was acknowledged: with one replica \
         there is no copy to repair it from, restore the data file from a backup"
    )]
    JournalGap {
        /// The op.
        op: u64,
    },
    /// A block of the checkpoint cannot be read.
    #[error(
        "block {address} of the checkpoint: {error}; with one replica there is no copy to repair it \
         from, restore the data file from a backup"
    )]
    Block {
        /// Address of the block.
        address: u64,
        /// What is wrong with it.
        error: BlockError,
    },
    /// The checkpoint is intact but does not make sense.
    #[error("the checkpoint cannot be loaded: {what}; report this as a bug, with the data file")]
    Checkpoint {
        /// What does not fit.
        what: String,
    },
    /// Other replicas, or the log, have another checkpoint of the same op.
    #[error(
        "the checkpoint of op {op} is not the one that the other replicas have: one of them has computed \
         something else from the same log, and this one cannot tell that it was not it; keep the data \
         files of all replicas, and report this as a bug"
    )]
    Diverged {
        /// The op.
        op: u64,
    },
    /// State and limit do not fit each other.
    #[error(
        "the ledger in the data file needs {needed} bytes of memory, more than the limit of {limit}: \
         start it with a greater --limit-memory"
    )]
    MemoryLimit {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file that takes the place of a lost one has other sizes than those of the cluster.
    #[error(
        "this file was made with {own}, those of the other replicas with {others}: remove it, and \
         run `daftari recover` again with the sizes of the others"
    )]
    RecoverySizes {
        /// Sizes of this file.
        own: String,
        /// Sizes of theirs.
        others: String,
    },
    /// A file that takes the place of a lost one is for a cluster of another size.
    #[error(
        "this file was made for one of {own} replicas, and there are {others}; the others are standbys, or \
         missing in --addresses: remove it, and run `daftari recover` again with --replica-count={others}"
    )]
    RecoveryReplicas {
        /// Replicas that this file names.
        own: u8,
        /// Those that the files of the others name.
        others: u8,
    },
    /// The others hear a replica whose file is said to be lost.
    #[error(
        "replica {replica} still runs, the others hear it: two processes of one replica would lose \
         transfers. Check --replica; if it is the right one, stop the other process, then start this \
         file again"
    )]
    ReplicaRuns {
        /// The replica.
        replica: u8,
    },
    /// The file is an older copy of what it was.
    #[error(
        "the data file is an older copy: it has view {own_view} and checkpoint {own_checkpoint}, and another \
         replica has heard this one tell of view {view} and checkpoint {checkpoint}. Others may count on what \
         it has forgotten: start the newest file of this replica, or remove this one and make another with \
         `daftari recover`"
    )]
    OlderCopy {
        /// View that the replica has told of.
        view: u32,
        /// Op of the checkpoint that it has told of.
        checkpoint: u64,
        /// View in the file.
        own_view: u32,
        /// Op of the checkpoint in the file.
        own_checkpoint: u64,
    },
    /// The geometry asked for at format is not usable.
    #[error("the sizes asked for do not make a data file: {what}")]
    Geometry {
        /// What does not fit.
        what: String,
    },
}

fn superblock_text(error: &SuperblockError) -> String {
    match error {
        SuperblockError::Foreign => {
            "this is not a daftari data file: make one with `daftari format`".into()
        }
        SuperblockError::Version { found } => format!(
            "the data file has layout version {found}, this binary reads version {}",
            storage_format::FORMAT_VERSION
        ),
        SuperblockError::NoQuorum { valid } => format!(
            "only {valid} of 4 copies of the superblock are intact and none has a second: restore \
             the data file from a backup"
        ),
        SuperblockError::Fork { sequence } => format!(
            "two different superblocks have sequence {sequence}: the file was written by two \
             processes, restore it from a backup"
        ),
    }
}

impl FatalReason {
    /// Exit status of the process; numbers are never used again.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Superblock(SuperblockError::Foreign) => 10,
            Self::Superblock(SuperblockError::Version { .. }) => 11,
            Self::Cluster { .. } => 12,
            Self::Replica { .. } => 13,
            Self::Size { .. } => 14,
            Self::Superblock(SuperblockError::NoQuorum { .. } | SuperblockError::Fork { .. }) => 15,
            Self::JournalSlot { .. } | Self::JournalGap { .. } => 16,
            Self::Block { .. } => 17,
            Self::Checkpoint { .. } => 18,
            Self::ReleaseNewer { .. } => 19,
            Self::MemoryLimit { .. } => 22,
            Self::Geometry { .. } => 23,
            Self::MemberCount { .. }
            | Self::StandbyAddress { .. }
            | Self::ReplicasOfOthers { .. } => 24,
            Self::RecoverySizes { .. } | Self::RecoveryReplicas { .. } => 25,
            Self::ReplicaRuns { .. } => 26,
            Self::Diverged { .. } => 27,
            Self::ReleaseOlder { .. } => 28,
            Self::ReleaseOfOthers { .. } => 29,
            Self::OlderCopy { .. } => 30,
        }
    }
}
