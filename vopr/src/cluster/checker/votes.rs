//! What replicas promise and claim to each other, over all their lives.

use crate::cluster::quorum;
use crate::sim::history::History;
use crate::sim::verdict::{Failure, Verdict, fail, require};
use daftari::wire::PeerHeader;
use std::collections::{BTreeMap, BTreeSet};
use storage_format::{Checksum, PrepareHeader, Superblock};

/// A vote for a view.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Ballot {
    log_view: u32,
    head: u64,
    commit: u64,
    /// Whether nothing can have been in the log beyond its head.
    certain: bool,
    /// View, op and identity of its headers, newest first.
    log: Vec<(u32, u64, Checksum)>,
    /// One bit for each of them that was never acknowledged.
    nacks: u64,
}

impl Ballot {
    fn new(header: &PeerHeader, log: &[PrepareHeader]) -> Self {
        let entry = |entry: &PrepareHeader| (entry.view.get(), entry.op.get(), entry.checksum);
        Self {
            log_view: header.log_view.get(),
            head: header.op.get(),
            commit: header.commit.get(),
            certain: header.uncertain == 0,
            log: log.iter().map(entry).collect(),
            nacks: header.nacks.get(),
        }
    }

    /// Whether this says of a prepare that it was never acknowledged.
    fn denies(&self, (view, op, checksum): (u32, u64, Checksum)) -> bool {
        if self.head < op {
            return self.certain || self.log_view < view;
        }
        let mut entries = self.log.iter().enumerate();
        entries.any(|(index, (_, other, known))| {
            *other == op && (*known != checksum || self.nacks >> index & 1 == 1)
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Votes {
    replicas: u8,
    /// By replica and op: what was acknowledged, and in which view.
    promises: Vec<BTreeMap<u64, (Checksum, u32)>>,
    /// By view and replica, each that differs from the one before.
    ballots: BTreeMap<(u32, u8), Vec<Ballot>>,
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
        let promise = (header.checksum_item, header.view.get());
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
        let ballot = Ballot::new(header, log);
        let ballots = self.ballots.entry((view, replica)).or_default();
        if let Some(before) = ballots.last() {
            let pairs = before.log.iter().zip(&ballot.log);
            let known = before.log.len().min(ballot.log.len());
            let longer = [&before.log, &ballot.log]
                .into_iter()
                .map(|log| &log[known..]);
            // What a checkpoint that was made since has covers what a restart does not find again.
            let covered = longer
                .flatten()
                .all(|(_, op, _)| *op < header.checkpoint_op.get());
            let same = before.log_view == ballot.log_view
                && before.head == ballot.head
                && pairs.into_iter().all(|(before, now)| before == now)
                && covered;
            // What could not be read, and was not denied either, may be found later.
            let found =
                before.log_view == ballot.log_view && before.head < ballot.head && !before.certain;
            require(same || found, "I07", || {
                format!("replica {replica} votes for view {view} with {ballot:?}, after {before:?}")
            })?;
        }
        if ballots.last() != Some(&ballot) {
            ballots.push(ballot);
        }
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

    /// A primary starts its view: all starts of a view agree (I08), and the first drops only what may be
    /// dropped (I09). Whether it is the first.
    pub(super) fn on_start(
        &mut self,
        history: &History,
        view: u32,
        log: &[PrepareHeader],
    ) -> Result<bool, Failure> {
        for entry in log {
            let op = entry.op.get();
            let known = *self.starts.entry((view, op)).or_insert(entry.checksum);
            require(known == entry.checksum, "I08", || {
                format!("view {view} starts with two prepares of op {op}")
            })?;
        }
        let newest = self.started.last().copied();
        if !self.started.insert(view) {
            return Ok(false);
        }
        // The only replica votes with nobody.
        if self.replicas > 1 {
            self.check_dropped(view, log)?;
        }
        if newest < Some(view) {
            check_committed(history, view, log)?;
        }
        Ok(true)
    }

    /// The op after the head of the new log, if anybody voted with one, was denied by a nack quorum; and
    /// no vote knows a later op to be committed (I09). Which votes were used is not seen: those of some
    /// log view, not before that of the primary, explain the new log.
    fn check_dropped(&self, view: u32, log: &[PrepareHeader]) -> Verdict {
        let head = log[0].op.get();
        let votes: Vec<(u8, &Ballot)> = self
            .ballots
            .range((view, 0)..=(view, u8::MAX))
            .flat_map(|((_, replica), ballots)| ballots.iter().map(|ballot| (*replica, ballot)))
            .collect();
        let primary = self.primary(view);
        let own = votes.iter().find(|(replica, _)| *replica == primary);
        let Some((_, own)) = own else {
            return fail(
                "I09",
                format!("view {view} starts, and its primary never voted"),
            );
        };
        require(head >= own.commit, "I09", || {
            format!(
                "view {view} starts at op {head}, below commit {}",
                own.commit
            )
        })?;
        let denied = |entry: (u32, u64, Checksum)| {
            let deniers = votes.iter().filter(|(_, ballot)| ballot.denies(entry));
            let deniers: BTreeSet<u8> = deniers.map(|(replica, _)| *replica).collect();
            deniers.len() >= quorum::nack(self.replicas)
        };
        let explains = |log_view: u32| {
            let same = votes
                .iter()
                .filter(|(_, ballot)| ballot.log_view == log_view);
            let mut entries = same.flat_map(|(_, ballot)| &ballot.log);
            entries.all(|entry| {
                let kept = log.iter().find(|kept| kept.op.get() == entry.1);
                match kept {
                    Some(kept) => kept.checksum == entry.2,
                    None => entry.1 != head + 1 || denied(*entry),
                }
            })
        };
        let log_views: BTreeSet<u32> = votes.iter().map(|(_, ballot)| ballot.log_view).collect();
        let explained = log_views
            .range(own.log_view..)
            .any(|log_view| explains(*log_view));
        require(explained, "I09", || {
            format!("view {view} starts at op {head}, which its votes do not allow: {votes:?}")
        })
    }
}

/// All that is committed is in the log of a view that is later than all before.
fn check_committed(history: &History, view: u32, log: &[PrepareHeader]) -> Verdict {
    let committed = history.head();
    let head = log[0].op.get();
    require(head >= committed, "I09", || {
        format!("view {view} starts at op {head}, and {committed} is committed")
    })?;
    for entry in log {
        let op = entry.op.get();
        let known = history.prepare(op);
        let parent = op.checked_sub(1).and_then(|below| history.prepare(below));
        let same = known.is_none_or(|known| known.checksum == entry.checksum)
            && parent.is_none_or(|parent| parent.checksum == entry.parent);
        require(same, "I09", || {
            format!("view {view} starts with another op {op} than the committed one")
        })?;
    }
    Ok(())
}
