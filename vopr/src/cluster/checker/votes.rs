//! What replicas promise and claim to each other, over all their lives.

use crate::sim::verdict::{Verdict, fail, require};
use daftari::wire::PeerHeader;
use std::collections::{BTreeMap, BTreeSet};
use storage_format::{Checksum, PrepareHeader, Superblock};

/// A vote for a view: `log_view`, head, and the headers.
type Ballot = (u32, u64, Vec<Checksum>);

/// See the module.
#[derive(Debug)]
pub(super) struct Votes {
    replicas: u8,
    /// By replica and op: what was acknowledged, and in which view.
    promises: Vec<BTreeMap<u64, (Checksum, u32)>>,
    /// By replica and view.
    ballots: BTreeMap<(u8, u32), Ballot>,
    /// By view and op, the prepare that was made (I08).
    made: BTreeMap<(u32, u64), Checksum>,
    /// By view and op, what the starts of views say (I08).
    starts: BTreeMap<(u32, u64), Checksum>,
    /// Views that were started.
    started: BTreeSet<u32>,
}

impl Votes {
    pub(super) fn new(replicas: u8) -> Self {
        Self {
            replicas,
            promises: (0..replicas).map(|_| BTreeMap::new()).collect(),
            ballots: BTreeMap::new(),
            made: BTreeMap::new(),
            starts: BTreeMap::new(),
            started: BTreeSet::new(),
        }
    }

    /// The primary of a view.
    pub(super) fn primary(&self, view: u32) -> u8 {
        u8::try_from(view % u32::from(self.replicas)).expect("below 6")
    }

    /// A prepare, or its header, was seen: the only one of its view and op, made by that view's primary
    /// (I08).
    pub(super) fn on_header(&mut self, header: &PrepareHeader) -> Verdict {
        let (view, op) = (header.view.get(), header.op.get());
        let known = *self.made.entry((view, op)).or_insert(header.checksum);
        require(known == header.checksum, "I08", || {
            format!("op {op} of view {view} is {} and {known}", header.checksum)
        })?;
        require(header.replica == self.primary(view), "I08", || {
            format!("op {op} of view {view} was made by {}", header.replica)
        })
    }

    /// A replica acknowledges a prepare.
    pub(super) fn on_prepare_ok(&mut self, replica: u8, header: &PeerHeader) {
        let promise = (header.checksum_prepare, header.view.get());
        self.promises[usize::from(replica)].insert(header.op.get(), promise);
    }

    /// A replica has made the log of a later view durable: promises of what that does not hold are
    /// void.
    pub(super) fn on_log_installed(&mut self, replica: u8, superblock: &Superblock) {
        let log_view = superblock.log_view.get();
        let headers = &superblock.view_headers;
        let head = headers[0].op.get();
        self.promises[usize::from(replica)].retain(|op, (checksum, view)| {
            let mut listed = headers.iter();
            let listed = listed.find(|header| header.op.get() == *op);
            let kept = *op <= head && listed.is_none_or(|header| header.checksum == *checksum);
            kept || *view >= log_view
        });
    }

    /// A replica votes: as it did before (I07), and for a log that holds all that it acknowledged (I05).
    pub(super) fn on_ballot(
        &mut self,
        replica: u8,
        header: &PeerHeader,
        log: &[PrepareHeader],
    ) -> Verdict {
        let (view, op) = (header.view.get(), header.op.get());
        let checksums = log.iter().map(|header| header.checksum).collect();
        let ballot: Ballot = (header.log_view.get(), op, checksums);
        let before = self
            .ballots
            .entry((replica, view))
            .or_insert(ballot.clone());
        require(*before == ballot, "I07", || {
            format!("replica {replica} votes for view {view} with {ballot:?}, after {before:?}")
        })?;
        let promises = &self.promises[usize::from(replica)];
        if let Some((last, _)) = promises.last_key_value() {
            // Who may have lost the end of its log says so, and then it proves nothing.
            require(*last <= op || header.uncertain != 0, "I05", || {
                format!("replica {replica} acknowledged op {last}, and votes with head {op}")
            })?;
        }
        for (index, entry) in log.iter().enumerate() {
            let Some((promised, _)) = promises.get(&entry.op.get()) else {
                continue;
            };
            let nacked = header.nacks.get() >> index & 1 == 1;
            if nacked && *promised == entry.checksum {
                return fail(
                    "I05",
                    format!(
                        "replica {replica} acknowledged op {}, and denies it in view {view}",
                        entry.op
                    ),
                );
            }
        }
        Ok(())
    }

    /// A primary starts its view: all starts of a view agree (I08). Whether it is the first.
    pub(super) fn on_start(&mut self, view: u32, log: &[PrepareHeader]) -> (bool, Verdict) {
        let mut verdict = Ok(());
        for entry in log {
            let op = entry.op.get();
            let known = *self.starts.entry((view, op)).or_insert(entry.checksum);
            if known != entry.checksum {
                let what = format!("view {view} starts with two prepares of op {op}");
                verdict = verdict.and(fail("I08", what));
            }
        }
        (self.started.insert(view), verdict)
    }
}
