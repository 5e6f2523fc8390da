//! A replica whose data file was lost comes back with an empty one, and has forgotten what it promised.
//!
//! It may have acknowledged ops that only one other replica has, and votes of its earlier life may still
//! be on their way. So it promises nothing and takes no part in anything before it has joined a view
//! that is higher than any of its earlier life: that view began without it, so the others' memory alone
//! made its log, and no vote and no acknowledgement of the earlier life counts in it.
//!
//! * How high is that? Whoever asks for a view has the one before it durable, and a view-change quorum
//!   has to ask before anybody enters. So a replica was never more than one view ahead of a
//!   view-change quorum less itself, and one of `enough` others has the view that it was in, or the one
//!   before. Two more than the highest that they name is higher than all.
//! * The others are asked to change the view until it is that high; they decide on its log as always.
//! * View, log and checkpoint go into the superblock in the write that ends the recovery. A crash
//!   before it finds a replica that has promised nothing yet, and begins anew.
//! * What it joins with are headers: bodies and blocks come later. A prepare of a view before the one that
//!   it joined may have been acknowledged in the earlier life, so it is never denied, and the
//!   superblock says so from then on (`recovered_view`).
//!
//! A second process for a replica that lives would be worse than a lost file. The others tell if they hear
//! it; then it waits, and gives up.

use super::timers::{PATIENCE, PROGRESS};
use super::{Effect, Replica};
use crate::constants::REPLICA_COUNT_MAX;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::to_usize;
use crate::vsr::FatalReason;
use crate::vsr::members::Voter;
use crate::vsr::message::{self, RecoveryAnswer};
use crate::wire::PeerHeader;
use crate::wire::header::command;
use storage_format::Geometry;
use zerocopy::{FromBytes, IntoBytes};

/// How long somebody who speaks as a replica counts as running: longer than the pauses of one at work.
const SPEAKS: u64 = PATIENCE;
/// How long the others may hear another process of this replica before this one gives up: frames of its
/// earlier life may be late.
const IMPOSTOR: u64 = 20 * PATIENCE;

/// What a replica that recovers knows of the others.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// By replica: the view in its superblock.
    views: [Option<u32>; REPLICA_COUNT_MAX as usize],
    /// By replica: since when it hears somebody speak as this one, and when it said so last.
    hears: [Option<(u64, u64)>; REPLICA_COUNT_MAX as usize],
    /// The lowest view that may be joined, once it is known.
    target: Option<u32>,
    /// When to say again what it waits for.
    say: u64,
}

impl Recovery {
    fn answers(&self) -> usize {
        self.views.iter().flatten().count()
    }

    /// Whether nobody hears another process of this replica. Who has not answered for a while may be gone.
    fn is_alone(&self, now: u64) -> bool {
        let mut hears = self.hears.iter().flatten();
        hears.all(|(_, last)| now >= last + 2 * PATIENCE)
    }
}

impl Replica {
    /// Whether this replica remembers nothing, and may promise nothing.
    pub(super) fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// How many others have to answer: any of them so many have one that was asked for the view which
    /// this replica was in last.
    fn answers_needed(&self) -> usize {
        usize::from(self.members.replica_count() - self.quorums.view_change) + 1
    }

    /// Asks all others what they remember, and for a view that is high enough.
    pub(super) fn ask_recovery(&mut self) {
        if self.syncing.is_some() || self.view_writing.is_some() {
            return;
        }
        let Some(recovery) = &self.recovery else {
            return;
        };
        let mut header = self.peer_header(command::RECOVER);
        header.nonce = self.nonce.into();
        header.view_next = recovery.target.unwrap_or(0).into();
        self.broadcast(&message::frame(header, &[]));
        self.say_what_is_missing();
    }

    fn say_what_is_missing(&mut self) {
        let (now, needed) = (self.timers.now, self.answers_needed());
        let others = self.members.other_replicas();
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        if recovery.say > now {
            return;
        }
        recovery.say = now + PROGRESS;
        let answers = recovery.answers();
        if let Some(view) = recovery.target {
            tracing::info!(view, "recovering: waiting for the others to start a view");
        } else {
            let silent = others.filter(|other| recovery.views[usize::from(*other)].is_none());
            let silent: Vec<u8> = silent.collect();
            tracing::warn!(
                ?silent,
                "recovering: {answers} of {needed} answers; without them nothing proves what this \
                 replica promised before its file was lost, so it waits for them, for ever if need be"
            );
        }
    }

    /// A replica whose file was lost asks.
    pub(super) fn on_recover(&mut self, from: Voter, question: &PeerHeader) {
        let replica = from.index();
        let heard = self.peers[from.at()].heard;
        let impostor = heard.is_some_and(|at| !self.timers.due(at + SPEAKS));
        if self.may_promise() {
            self.answer_recovery(question, impostor);
        }
        let wanted = question.view_next.get();
        if wanted > self.view {
            // As if the primary were missed: the view changes when a quorum is asked for it. Who is not
            // certain of its log could not decide on that of another view, and has to be told of this one.
            if self.certain {
                mark(Mark::ViewAskedToRecover);
                self.ask_next_view();
            }
        } else if wanted > 0 && self.leads() && self.view_is_durable() {
            self.send_start_view(replica, question.nonce.get());
        }
    }

    /// Tells who recovers what this replica has durable, and how its file is made.
    pub(super) fn answer_recovery(&mut self, question: &PeerHeader, impostor: bool) {
        let mut header = self.peer_header(command::RECOVERY);
        header.nonce = question.nonce;
        let answer = RecoveryAnswer {
            geometry: self.geometry,
            impostor: u8::from(impostor),
            replica_count: self.members.replica_count(),
            reserved: [0; 6],
        };
        self.send_peer(question.replica, message::frame(header, answer.as_bytes()));
    }

    /// Another replica has answered.
    pub(super) fn on_recovery(&mut self, from: Voter, header: &PeerHeader, body: &[u8]) {
        let (now, needed) = (self.timers.now, self.answers_needed());
        let (own, nonce) = (self.members.own(), self.nonce);
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        // What was asked by another process may have been answered before the file was lost.
        if header.nonce.get() != nonce {
            mark(Mark::AnswerOfEarlierLife);
            return;
        }
        let Ok(answer) = RecoveryAnswer::read_from_bytes(body) else {
            tracing::warn!("an answer that makes no sense is ignored");
            return;
        };
        let first = recovery.answers() == 0;
        if !self.learn_release(header, first) {
            return;
        }
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        if answer.geometry != self.geometry {
            let reason = FatalReason::RecoverySizes {
                own: sizes(&self.geometry),
                others: sizes(&answer.geometry),
            };
            self.effects.push_back(Effect::Stop(reason));
            return;
        }
        let own_count = self.members.replica_count();
        // Older binaries do not say it.
        if ![0, own_count].contains(&answer.replica_count) {
            let reason = FatalReason::RecoveryReplicas {
                own: own_count,
                others: answer.replica_count,
            };
            self.effects.push_back(Effect::Stop(reason));
            return;
        }
        let hears = &mut recovery.hears[from.at()];
        if answer.impostor != 0 {
            mark(Mark::OwnPlaceTaken);
            let (since, last) = hears.get_or_insert((now, now));
            *last = now;
            if now >= *since + IMPOSTOR {
                let reason = FatalReason::ReplicaRuns { replica: own };
                self.effects.push_back(Effect::Stop(reason));
            }
            return;
        }
        *hears = None;
        if recovery.target.is_some() {
            return;
        }
        let view = header.view.get();
        let known = &mut recovery.views[from.at()];
        let first = known.is_none();
        *known = Some(known.map_or(view, |before| before.max(view)));
        let answers = recovery.answers();
        if first {
            tracing::info!(
                replica = from.index(),
                view,
                "recovering: {answers} of {needed} answers"
            );
        }
        if answers >= needed {
            let newest = recovery.views.iter().flatten().max();
            let mut target = newest.expect("there are some") + 2;
            if self.primary_of(target) == self.members.own() {
                // This replica cannot start it.
                mark(Mark::TargetOfOwn);
                target += 1;
            }
            let recovery = self.recovery.as_mut().expect("it was there just now");
            recovery.target = Some(target);
            recovery.say = 0;
            self.ask_recovery();
        }
    }

    /// Whether the start of a view is what this replica waits for.
    pub(super) fn may_join(&self, view: u32) -> bool {
        let recovery = self.recovery.as_ref();
        recovery.is_some_and(|recovery| {
            recovery.is_alone(self.timers.now)
                && recovery.target.is_some_and(|target| view >= target)
        })
    }

    /// The superblock has the view that was joined: from now on this is a replica like any other, but for
    /// what it lacks.
    pub(super) fn end_recovery(&mut self) {
        if self.recovery.take().is_none() {
            return;
        }
        self.recovered_view = self.log_view;
        self.begin_telling();
        let to = self.log.head().op.get();
        tracing::info!(
            view = self.view,
            "recovering: this replica takes part again, and catches up to op {to}"
        );
        self.catch_up_with_loss();
    }
}

/// The sizes as options of the command line.
fn sizes(geometry: &Geometry) -> String {
    let slots = to_usize(geometry.journal_slot_count.get());
    format!(
        "--journal-slots={slots} --sessions={} --limit-storage={}",
        geometry.session_count_max, geometry.file_size_max
    )
}

#[cfg(test)]
mod tests {
    use super::{IMPOSTOR, RecoveryAnswer};
    use crate::constants::RELEASE_LOG_MAX;
    use crate::vsr::FatalReason;
    use crate::vsr::message;
    use crate::vsr::replica::{Effect, Replica, Way};
    use crate::vsr::testing::{self, Room, geometry};
    use crate::wire::PeerHeader;
    use crate::wire::header::command;
    use storage_format::Geometry;
    use zerocopy::{FromBytes, IntoBytes};

    const MS: u64 = 1_000_000;
    const NONCE: u128 = 77;

    fn replica(index: u8, count: u8, recovering: bool) -> Replica {
        let mut superblock = testing::superblock(index, count, 32);
        superblock.recovering = u8::from(recovering);
        let mut replica = testing::start(&superblock, NONCE);
        let peers = replica.peers.iter_mut();
        peers.for_each(|peer| peer.heard_no_more = true);
        replica
    }

    /// A frame to another replica: to whom, header and body.
    type Sent = (u8, PeerHeader, Vec<u8>);

    /// All that a replica wants at a moment: frames to others, by command, and why it stops.
    fn poll(replica: &mut Replica, now: u64) -> (Vec<Sent>, Vec<FatalReason>) {
        replica.observe(now, 1);
        replica.tick();
        let (mut sent, mut stops) = (Vec::new(), Vec::new());
        while let Some(effect) = replica.poll_effect() {
            match effect {
                Effect::Send {
                    to: Way::Peer(to),
                    frame,
                } => {
                    let (header, body) = PeerHeader::read_from_prefix(&frame).unwrap();
                    sent.push((to, header, body.to_vec()));
                }
                Effect::Stop(reason) => stops.push(reason),
                other @ (Effect::WritePrepare(_)
                | Effect::WriteHeaders(_)
                | Effect::WriteView(_)
                | Effect::Sync(_)
                | Effect::ReadPrepare(_)
                | Effect::Execute(_)
                | Effect::Send { .. }) => panic!("{other:?}"),
            }
        }
        (sent, stops)
    }

    fn say(replica: &mut Replica, from: u8, command: u8, view: u32, body: &[u8]) {
        let mut header = PeerHeader::zeroed();
        header.release = RELEASE_LOG_MAX.into();
        header.command = command;
        header.replica = from;
        header.view = view.into();
        header.nonce = NONCE.into();
        let frame = message::frame(header, body);
        replica.handle(testing::incoming(0, &frame), &Room);
    }

    fn answer(replica_count: u8, impostor: u8, geometry: Geometry) -> Vec<u8> {
        let answer = RecoveryAnswer {
            geometry,
            impostor,
            replica_count,
            reserved: [0; 6],
        };
        answer.as_bytes().to_vec()
    }

    /// The view that it asks for, when it has asked all others.
    fn asks_for(replica: &mut Replica, now: u64) -> Option<u32> {
        let (sent, stops) = poll(replica, now);
        assert!(stops.is_empty(), "{stops:?}");
        assert!(
            sent.iter()
                .all(|(_, header, _)| header.command == command::RECOVER)
        );
        sent.last().map(|(_, header, _)| header.view_next.get())
    }

    #[test]
    fn two_views_more_than_enough_others_have() {
        // (replicas, views of those who answer, the view that is asked for)
        let cases: [(u8, &[u32], u32); 6] = [
            (3, &[4], 0),
            (3, &[4, 6], 9),
            (4, &[5, 5], 7),
            (5, &[9, 1], 0),
            (5, &[9, 1, 2], 11),
            (6, &[0, 3, 1], 5),
        ];
        for (count, views, expected) in cases {
            let mut own = replica(2, count, true);
            assert_eq!(asks_for(&mut own, MS), Some(0));
            let others = (0..count).filter(|other| *other != 2);
            for (other, view) in others.zip(views) {
                // What it hears beside answers means nothing to it.
                say(&mut own, other, command::COMMIT, 100, &[]);
                say(
                    &mut own,
                    other,
                    command::RECOVERY,
                    *view,
                    &answer(count, 0, geometry(32)),
                );
            }
            let asked = asks_for(&mut own, 200 * MS).unwrap();
            // Not 8 of three: replica 2 would have to start that.
            assert_eq!(asked, expected, "{count} replicas, {views:?}");
            assert_eq!(own.view, 0);
        }
    }

    #[test]
    fn other_sizes_stop_it() {
        let mut own = replica(1, 3, true);
        assert_eq!(asks_for(&mut own, MS), Some(0));
        let mut sizes = geometry(32);
        sizes.session_count_max = 9.into();
        say(&mut own, 0, command::RECOVERY, 1, &answer(3, 0, sizes));
        let (_, stops) = poll(&mut own, 2 * MS);
        let text = stops[0].to_string();
        assert!(
            text.contains("--sessions=8") && text.contains("--sessions=9"),
            "{text}"
        );
    }

    #[test]
    fn a_process_that_others_hear_keeps_another_from_its_place() {
        let mut other = replica(0, 3, false);
        drop(poll(&mut other, MS));
        let heard = |other: &mut Replica, now| {
            say(other, 1, command::RECOVER, 0, &[]);
            let (sent, _) = poll(other, now);
            let found = sent
                .iter()
                .find(|(_, header, _)| header.command == command::RECOVERY);
            let (_, _, body) = found.unwrap();
            RecoveryAnswer::read_from_bytes(body).unwrap().impostor
        };
        assert_eq!(heard(&mut other, 2 * MS), 0);
        say(&mut other, 1, command::PONG, 0, &[]);
        assert_eq!(heard(&mut other, 3 * MS), 1);
        assert_eq!(
            heard(&mut other, 2000 * MS),
            1,
            "the clock moves after the answer"
        );
        assert_eq!(heard(&mut other, 2001 * MS), 0);

        let mut own = replica(1, 3, true);
        assert_eq!(asks_for(&mut own, MS), Some(0));
        say(
            &mut own,
            2,
            command::RECOVERY,
            4,
            &answer(3, 0, geometry(32)),
        );
        say(
            &mut own,
            0,
            command::RECOVERY,
            4,
            &answer(3, 1, geometry(32)),
        );
        assert_eq!(asks_for(&mut own, 200 * MS), Some(0), "that is no answer");
        drop(poll(&mut own, MS + IMPOSTOR));
        say(
            &mut own,
            0,
            command::RECOVERY,
            4,
            &answer(3, 1, geometry(32)),
        );
        let (_, stops) = poll(&mut own, 2 * MS + IMPOSTOR);
        assert_eq!(stops, [FatalReason::ReplicaRuns { replica: 1 }]);
    }
}
