//! From one view to the next.
//!
//! A replica that misses its primary asks for the next view, and goes on as before until a view-change
//! quorum asks for it: whoever is cut off disturbs nobody. Then it makes the view durable and votes: it
//! tells everybody the top of its log. The primary of the view decides on the log (`vsr::vote`), makes
//! that durable, and starts the view; what is missing of bodies is repaired while the view is at
//! work. Backups make the log that they are told of durable before they take part.
//!
//! The log that a replica votes with is the one of its log view until it has durably installed another:
//! a view that does not come about changes nothing.

use super::timers::{ASKED, PATIENCE, RESEND};
use super::{Replica, Status, ViewState};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::vsr::log::{Body, Entry};
use crate::vsr::members::Voter;
use crate::vsr::message::{self, CheckpointState, VIEW_HEADERS_MAX};
use crate::vsr::replica::{Effect, InFlight};
use crate::vsr::vote::{Decided, Vote, decide};
use crate::wire::PeerHeader;
use crate::wire::header::command;
use storage_format::PrepareHeader;

impl Replica {
    /// Waits anew for the primary, or for the view to start.
    pub(super) fn be_patient(&mut self) {
        let jitter = self.timers.draw(self.members.own()) % (PATIENCE / 2);
        self.timers.patience = self.timers.now + PATIENCE + jitter;
    }

    /// Whether this primary has had something to do for long, and does not come on: whatever the reason,
    /// another has to try.
    pub(super) fn stalls(&self) -> bool {
        let waits = self.log.head().op.get() > self.executed.0;
        let stands = waits && self.timers.due(self.timers.progress + 5 * PATIENCE);
        // Without others to start a view its silence would help nobody.
        let heard = self.peers_heard().count() + 1;
        let stands = stands && heard >= usize::from(self.quorums.view_change);
        (stands || self.another_has_time()) && !planted(Bug::NeverGiveUp)
    }

    /// Nothing was heard for long: of the primary, of the view to come, or, as primary, of quorums.
    pub(super) fn lose_patience(&mut self) {
        if self.leads() && !self.stalls() {
            mark(Mark::AskTakenBack);
            // Trouble that is over.
            self.asking = None;
        } else {
            self.ask_next_view();
        }
    }

    /// Whether heartbeats have failed to come, though not yet for long enough to ask for a view alone.
    pub(super) fn misses_primary(&self) -> bool {
        !self.leads() && self.timers.due(self.timers.heard + PATIENCE / 2)
    }

    /// Asks for the next view, if the superblock has this one. So nobody ever enters a view before a
    /// view-change quorum has the one before it durable; a replica that lost its file relies on that
    /// to know which views it can have been in.
    pub(super) fn ask_next_view(&mut self) {
        let unsure = self.view_durable.0 != self.view || self.syncing.is_some();
        if unsure || self.is_recovering() || self.members.is_standby() {
            mark(Mark::AskTooEarly);
            return;
        }
        self.asking = Some(self.view + 1);
        self.send_start_view_change();
        self.count_askers();
    }

    fn send_start_view_change(&mut self) {
        if let Some(view) = self.asking {
            let mut header = self.peer_header(command::START_VIEW_CHANGE);
            header.view_next = view.into();
            self.broadcast(&message::frame(header, &[]));
        }
    }

    pub(super) fn on_start_view_change(&mut self, from: Voter, ask: &PeerHeader) {
        let wanted = ask.view_next.get();
        self.peers[from.at()].asked = Some((wanted, self.timers.now));
        if ask.view.get() > self.view {
            // A quorum has asked for that one.
            mark(Mark::EnterByAsk);
            self.enter(ask.view.get());
        }
        if self.asking.is_none() && wanted == self.view + 1 && self.misses_primary() {
            mark(Mark::AskSeconded);
            // Somebody misses the primary that this replica has not heard for a while, too.
            self.ask_next_view();
        }
        self.count_askers();
    }

    /// Enters the view that this replica asks for, once a quorum does.
    fn count_askers(&mut self) {
        let Some(view) = self.asking else { return };
        let others = self.peers.iter().filter(|peer| {
            peer.asked
                .is_some_and(|(asked, at)| asked == view && !self.timers.due(at + ASKED))
        });
        let quorum = usize::from(self.quorums.view_change);
        if others.count() + 1 >= quorum || planted(Bug::EnterViewAlone) {
            self.enter(view);
        }
    }

    /// Leaves the present view for the change to a later one.
    pub(super) fn enter(&mut self, view: u32) {
        assert!(view > self.view);
        tracing::info!(from = self.view, to = view, "view change");
        self.view = view;
        self.status = Status::ViewChange;
        self.leave();
        self.votes.fill(None);
    }

    /// What belongs to the view that is left goes.
    pub(super) fn leave(&mut self) {
        self.keep_queue();
        self.pipeline.clear();
        self.events_waiting = 0;
        self.asking = None;
        self.replies_asked.clear();
        self.early.clear();
        self.wanted.clear();
        self.headers_asked = 0;
        self.primary_head = 0;
        self.asked_up_to = (0, 0);
        self.timers.progress = self.timers.now;
        self.timers.heard = self.timers.now;
        self.be_patient();
    }

    /// Has the view written to the superblock, if that has another.
    pub(super) fn write_view(&mut self) {
        if self.view_writing.is_some() || self.syncing.is_some() || self.view_is_durable() {
            return;
        }
        self.view_writing = Some((self.view, self.log_view, self.installs));
        let view = self.view_state();
        self.effects.push_back(Effect::WriteView(view));
        if planted(Bug::VoteBeforeDurable) {
            self.view_durable = (self.view, self.log_view);
            self.installs_durable = self.installs;
            self.view_became_durable();
        }
    }

    /// What the superblock is to have of the view.
    pub(super) fn view_state(&self) -> ViewState {
        ViewState {
            view: self.view,
            log_view: self.log_view,
            commit_max: self.commit_max,
            release: self.release,
            headers: self.log.newest(VIEW_HEADERS_MAX),
        }
    }

    pub(super) fn on_view_durable(&mut self) {
        let written = self.view_writing.take();
        let (view, log_view, installs) = written.expect("it was being written");
        (self.view_durable, self.installs_durable) = ((view, log_view), installs);
        self.end_recovery();
        // If it is another one by now, that is written next.
        if self.view_is_durable() {
            self.view_became_durable();
        } else {
            mark(Mark::ViewOutrun);
        }
    }

    pub(super) fn view_became_durable(&mut self) {
        if self.log_view < self.view {
            self.vote_now();
        } else if self.status != Status::Normal {
            self.begin();
        }
    }

    /// Whether this replica has left its view, waits for another to start, and may say what it has promised.
    fn is_voting(&self) -> bool {
        let installed = self.log_view == self.view;
        let votes = self.status == Status::ViewChange && self.view_is_durable() && !installed;
        if votes && !self.may_promise() {
            mark(Mark::VoteTooEarly);
            return false;
        }
        votes
    }

    pub(super) fn resend(&mut self) {
        self.timers.resend = self.timers.now + RESEND;
        if self.is_recovering() {
            self.ask_recovery();
            return;
        }
        self.send_start_view_change();
        if self.is_voting() {
            self.send_vote();
        }
        if self.is_stuck() {
            mark(Mark::StuckAsks);
            self.timers.start_view = 0;
            self.ask_start_view(self.primary_of(self.view));
        }
        if self.status == Status::Recovering {
            mark(Mark::UncertainAsks);
            for replica in self.members.other_replicas() {
                self.timers.start_view = 0;
                self.ask_start_view(replica);
            }
        }
    }

    /// What this replica knows of the log of its log view.
    fn vote(&self) -> Vote {
        let headers = self.log.newest(VIEW_HEADERS_MAX);
        let bits = |wanted: &dyn Fn(&Entry) -> bool| {
            let held = headers.iter().enumerate().filter(|(_, header)| {
                let entry = self.log.entry(header.op.get());
                wanted(entry.expect("it is in the chain"))
            });
            held.fold(0, |bits, (at, _)| bits | 1 << at)
        };
        let present = |entry: &Entry| matches!(entry.body, Body::Written | Body::Durable);
        let never_acknowledged = |entry: &Entry| {
            let forgotten =
                entry.header.view.get() < self.recovered_view && !planted(Bug::DenyForgotten);
            if forgotten && !entry.promised {
                mark(Mark::ForgottenNotDenied);
            }
            !(entry.promised || forgotten) || planted(Bug::NackLost)
        };
        Vote {
            log_view: self.log_view,
            commit: self.commit_max,
            certain: self.certain,
            present: bits(&present),
            nacks: bits(&never_acknowledged),
            headers,
        }
    }

    /// Votes for the view to come.
    pub(super) fn vote_now(&mut self) {
        if self.is_voting() {
            self.send_vote();
            self.decide();
        }
    }

    fn send_vote(&mut self) {
        let vote = self.vote();
        let mut header = self.peer_header(command::DO_VIEW_CHANGE);
        header.op = vote.headers[0].op;
        header.present = vote.present.into();
        header.nacks = vote.nacks.into();
        header.uncertain = u8::from(!vote.certain);
        let frame = message::frame(header, message::headers_body(&vote.headers));
        self.broadcast(&frame);
    }

    pub(super) fn on_do_view_change(&mut self, from: Voter, header: &PeerHeader, body: &[u8]) {
        let view = header.view.get();
        let headers = message::headers(body, self.cluster)
            .filter(|all| (1..=VIEW_HEADERS_MAX).contains(&all.len()));
        let Some(headers) = headers else {
            tracing::warn!("a vote that makes no sense is ignored");
            return;
        };
        if view > self.view {
            // A quorum has asked for it.
            mark(Mark::EnterByVote);
            self.enter(view);
        }
        if view != self.view || !self.is_primary() {
            return;
        }
        if self.status == Status::Normal {
            mark(Mark::VoteForRunningView);
            // It has not heard that the view started.
            self.send_start_view(header.replica, 0);
        } else if self.log_view < self.view {
            self.votes[from.at()] = Some(Vote {
                log_view: header.log_view.get(),
                commit: header.commit.get(),
                headers,
                certain: header.uncertain == 0,
                present: header.present.get(),
                nacks: header.nacks.get(),
            });
            // It may be allowed to since a moment ago, and then the others have to hear of it, too.
            match self.votes[usize::from(self.members.own())] {
                None => self.vote_now(),
                Some(_) => self.decide(),
            }
        }
    }

    /// As primary of the view to come: decides on its log, if enough is known.
    fn decide(&mut self) {
        if !self.is_primary() || !self.is_voting() {
            return;
        }
        self.votes[usize::from(self.members.own())] = Some(self.vote());
        let votes: Vec<&Vote> = self.votes.iter().flatten().collect();
        if votes.len() < usize::from(self.quorums.view_change) {
            return;
        }
        let Some(decided) = decide(&votes, &self.quorums) else {
            if self.told.replace(self.view) != Some(self.view) {
                mark(Mark::ViewWaits);
                let view = self.view;
                tracing::warn!(view, "the view waits for more replicas to know its log");
            }
            return;
        };
        if self.lacks_state() || self.is_overwritten(decided.headers[0].op.get()) {
            // As primary it would have nobody to get from what it lacks.
            mark(if self.lacks_state() {
                Mark::ForfeitWithoutState
            } else {
                Mark::ForfeitBehindJournals
            });
            if self.asking.is_none() {
                tracing::info!(view = self.view, "another replica has to lead");
                self.ask_next_view();
            }
            return;
        }
        let head = decided.headers[0].op.get();
        if !self.fits(&decided.headers) || head < self.executed.0 {
            return;
        }
        self.install(&decided);
    }

    /// Makes a log that of the view; the superblock has it before anything else happens.
    pub(super) fn install(&mut self, decided: &Decided) {
        self.log_view = self.view;
        self.installs += 1;
        self.status = Status::ViewChange;
        self.certain = true;
        self.log.install(&decided.headers);
        self.commit_max = self.commit_max.max(decided.commit);
        for prepare in std::mem::take(&mut self.to_write) {
            if self.is_current(&prepare.header) {
                self.to_write.push_back(prepare);
            } else {
                mark(Mark::WriteDropped);
                // It may come back with a later view, and is not on its way any more.
                let _ = self.log.set_body(&prepare.header, Body::Missing);
                self.buffers.push(prepare.buffer);
            }
        }
        for (op, prepare) in std::mem::take(&mut self.ready) {
            if self.is_current(&prepare.header) {
                let _ = self.ready.insert(op, prepare);
            } else {
                mark(Mark::ReadyDropped);
                self.recycle(prepare.buffer);
            }
        }
    }

    /// Whether a prepare is in the log.
    fn is_current(&self, header: &PrepareHeader) -> bool {
        let entry = self.log.entry(header.op.get());
        entry.is_some_and(|entry| entry.header.checksum == header.checksum)
    }

    /// The view is at work: its log is in the superblock.
    fn begin(&mut self) {
        self.status = Status::Normal;
        self.leave();
        let head = self.log.head().op.get();
        tracing::info!(
            view = self.view,
            head,
            primary = self.is_primary(),
            "view started"
        );
        if self.is_primary() {
            self.timestamp_last = self.timestamp_last.max(self.log.head().timestamp.get());
            self.view_start = head;
            self.hear_commit(self.commit_max);
            self.pipeline = (self.commit_max + 1..=head).map(InFlight::new).collect();
            self.timers.heartbeat = self.timers.now;
            for other in self.members.other_replicas().chain(self.members.standbys()) {
                self.send_start_view(other, 0);
            }
        }
        self.acknowledge_all(self.commit_max);
        self.repair();
    }

    pub(super) fn send_start_view(&mut self, replica: u8, nonce: u128) {
        let mut header = self.peer_header(command::START_VIEW);
        let headers = self.log.newest(VIEW_HEADERS_MAX);
        header.op = headers[0].op;
        header.nonce = nonce.into();
        // Its blocks have to be somewhere.
        let checkpoint = match self.content_missing {
            true => CheckpointState::none(self.cluster),
            false => self.checkpoint,
        };
        let body = message::start_view_body(&checkpoint, &headers);
        self.send_peer(replica, message::frame(header, &body));
    }

    pub(super) fn on_start_view(&mut self, header: &PeerHeader, body: &[u8]) {
        let view = header.view.get();
        let Some((checkpoint, headers)) = message::start_view(body, self.cluster) else {
            tracing::warn!("a start of a view that makes no sense is ignored");
            return;
        };
        if header.replica != self.primary_of(view) || view < self.view {
            mark(Mark::StartOfOldView);
            return;
        }
        let wanted = match self.status {
            _ if self.syncing.is_some() => false,
            _ if self.is_recovering() => self.may_join(view),
            _ if view > self.view => true,
            // An answer that was late knows less than what was acknowledged since.
            Status::Normal => self.is_stuck() && headers[0].op >= self.log.head().op,
            Status::ViewChange => self.log_view < view,
            // Only an answer knows everything that this replica may have acknowledged.
            Status::Recovering => header.nonce.get() == self.nonce || planted(Bug::TakeStaleStart),
        };
        if !wanted {
            mark(match self.status {
                _ if self.syncing.is_some() => Mark::StartWhileSyncing,
                _ if self.is_recovering() => Mark::StartTooEarlyToJoin,
                Status::Normal => Mark::StartOfRunningView,
                Status::ViewChange => Mark::StartOfInstalledView,
                Status::Recovering => Mark::StartWithoutNonce,
            });
            return;
        }
        let decided = Decided {
            headers,
            commit: header.commit.get(),
        };
        let behind = self.is_recovering() && !self.is_in_journals(&checkpoint, &decided);
        if behind || self.is_stuck() || !self.fits(&decided.headers) {
            self.sync(view, checkpoint, &decided);
            return;
        }
        if decided.headers[0].op.get() < self.executed.0 {
            tracing::error!(
                view,
                "the start of a view lacks what is executed: it is ignored"
            );
            return;
        }
        self.view = view;
        if self.status == Status::Recovering && view == self.view_durable.0 {
            mark(Mark::UncertainResumes);
        }
        self.leave();
        self.install(&decided);
    }

    /// Asks the primary of a view for its start, but not too often.
    pub(super) fn ask_start_view(&mut self, primary: u8) {
        if primary == self.members.own() || !self.timers.due(self.timers.start_view) {
            return;
        }
        self.timers.start_view = self.timers.now + RESEND / 4;
        let mut header = self.peer_header(command::REQUEST_START_VIEW);
        header.nonce = self.nonce.into();
        self.send_peer(primary, message::frame(header, &[]));
    }

    pub(super) fn on_request_start_view(&mut self, request: &PeerHeader) {
        if self.leads() && self.view_is_durable() && request.view.get() <= self.view {
            self.send_start_view(request.replica, request.nonce.get());
        }
    }
}
