//! A data file that was put back from an older copy: its replica has forgotten what it promised since, and
//! nothing in the file says so. The others may remember.
//!
//! Views and checkpoints that a replica has told of are durable in its file, so they never go back; but for a file
//! that takes the place of a lost one, which joins in a view beyond all that the lost one can have had. So who is
//! heard to go back is not heard, since that may also be a frame that was late. And a replica that starts asks
//! the others what they have heard of it before it votes: it stops if that is more than its file has.
//! Acknowledgements need not wait, they tell of what is in the file now.
//!
//! Whoever restarts has forgotten what it heard. An older copy is not noticed by others that all started since.

use super::timers::PATIENCE;
use super::{Effect, Replica};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::vsr::FatalReason;
use crate::vsr::members::Voter;
use crate::wire::PeerHeader;
use crate::wire::header::command;

/// How long a replica says no less than this, and how often, until it is taken for what its file has: a frame that
/// somebody made up proves nothing.
const LONG: u64 = 4 * PATIENCE;
const OFTEN: u32 = 8;

/// A view, and the op of a checkpoint in it.
pub(super) type Progress = (u32, u64);

/// The most that a replica has told of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    view: Most,
    /// In that view.
    checkpoint_op: Most,
}

impl Told {
    /// The replica tells of something; whether that is no less than before.
    fn hear(&mut self, (view, checkpoint_op): Progress, now: u64) -> bool {
        if self.view.hear(view.into(), now) {
            // Perhaps in place of a file that was lost.
            self.checkpoint_op = Most::default();
        }
        let (most, view) = (self.view.value, u64::from(view));
        // Who waits for blocks tells of no checkpoint.
        if view >= most && checkpoint_op != 0 {
            let _risen = self.checkpoint_op.hear(checkpoint_op, now);
        }
        let less = checkpoint_op != 0 && checkpoint_op < self.checkpoint_op.value;
        view > most || view == most && !less
    }

    fn most(&self) -> Progress {
        let view = u32::try_from(self.view.value).expect("it was one");
        (view, self.checkpoint_op.value)
    }
}

/// The most of a number that only rises.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    value: u64,
    /// The least that was said since a moment, and how often.
    least: Option<(u64, u64, u32)>,
}

impl Most {
    /// A number is said; whether the most rises by that.
    fn hear(&mut self, said: u64, now: u64) -> bool {
        let (least, since, count) = self.least.take().unwrap_or((said, now, 0));
        let least = least.min(said);
        if now < since + LONG || count < OFTEN {
            self.least = Some((least, since, count + 1));
            return false;
        }
        let rises = least > self.value;
        self.value = self.value.max(least);
        rises
    }
}

impl Replica {
    /// Whether another replica remembers all that it has told of. Who lost its file says so.
    pub(super) fn remembers(&mut self, from: Voter, message: &PeerHeader) -> bool {
        if message.command == command::RECOVER || planted(Bug::TrustOlderCopy) {
            return true;
        }
        let told = &mut self.peers[from.at()].told;
        let progress = (message.view.get(), message.checkpoint_op.get());
        let remembers = told.hear(progress, self.timers.now);
        if !remembers {
            mark(Mark::ToldMoreBefore);
        }
        remembers
    }

    /// Adds to the answer to a question the most that who asks has told of.
    pub(super) fn add_told(&self, answer: &mut PeerHeader, asker: u8) {
        if let Some(asker) = self.members.voter(asker) {
            let (view, checkpoint_op) = self.peers[asker.at()].told.most();
            answer.view_next = view.into();
            answer.op = checkpoint_op.into();
        }
    }

    /// What the file has at this moment is what it has kept: nothing was told of more.
    pub(super) fn begin_telling(&mut self) {
        self.kept = (self.timers.now, self.progress());
    }

    fn progress(&self) -> Progress {
        (self.view_durable.0, self.checkpoint.op())
    }

    /// An answer to a question of this very process.
    pub(super) fn hear_told(&mut self, from: Voter, answer: &PeerHeader) {
        let told = (answer.view_next.get(), answer.op.get());
        let (since, kept) = self.kept;
        let own = self.progress();
        // This process may have told of that itself, some seconds ago: a clock may stand still meanwhile.
        let unclear = told > kept && self.timers.now < since + LONG;
        let peer = &mut self.peers[from.at()];
        if told <= own || planted(Bug::TrustOlderCopy) {
            peer.heard_more = 0;
            if !unclear && !std::mem::replace(&mut peer.heard_no_more, true) {
                self.vote_now();
            }
            return;
        }
        peer.heard_more += 1;
        // One frame proves nothing.
        if peer.heard_more > 1 {
            self.effects.push_back(Effect::Stop(FatalReason::OlderCopy {
                view: told.0,
                checkpoint: told.1,
                own_view: own.0,
                own_checkpoint: own.1,
            }));
        }
    }

    /// Whether this replica may tell what it has promised and what not: all of a view-change quorum have heard of no
    /// more than its file has. When they cannot be reached for long, it is enough that nobody says otherwise.
    pub(super) fn may_promise(&self) -> bool {
        let peers = || self.peers.iter();
        let others = peers().filter(|peer| peer.heard_no_more).count();
        let asked = others + 1 >= usize::from(self.quorums.view_change);
        let doubted = peers().any(|peer| peer.heard_more > 0);
        let long = self.timers.due(self.kept.0 + 5 * LONG);
        self.solo() || (asked || long) && !doubted || planted(Bug::TrustOlderCopy)
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, LONG, OFTEN, Progress, Told};
    use crate::constants::{NANOSECONDS, RELEASE_LOG_MAX};
    use crate::vsr::message;
    use crate::vsr::testing::{self, Room};
    use crate::wire::PeerHeader;
    use crate::wire::header::command;
    use storage_format::PrepareHeader;
    use zerocopy::FromBytes;

    /// Seed 0xefe0639d3251a1 of the clusters: a primary decided with a vote that nobody else had heard.
    #[test]
    fn who_may_vote_since_a_moment_is_heard_before_its_view_starts() {
        let mut primary = testing::start(&testing::superblock(1, 3, 48), 7);
        primary.observe(NANOSECONDS, NANOSECONDS);
        primary.begin_telling();
        primary.enter(1);
        primary.view_durable = (1, 0);
        assert!(!primary.may_promise());
        primary.vote_now();
        // Nobody answers for long. Then, before it says anything itself, another votes.
        let now = NANOSECONDS + 5 * LONG;
        primary.observe(now, now);
        assert!(primary.may_promise());
        let mut vote = PeerHeader::zeroed();
        vote.release = RELEASE_LOG_MAX.into();
        (vote.command, vote.view, vote.replica, vote.replica_count) =
            (command::DO_VIEW_CHANGE, 1.into(), 2, 3);
        let root = PrepareHeader::root(0);
        (vote.present, vote.nacks) = (1.into(), 0.into());
        let frame = message::frame(vote, message::headers_body(std::slice::from_ref(&root)));
        primary.handle(testing::incoming(0, &frame), &Room);
        let sent = std::mem::take(&mut primary.effects);
        let votes = sent.iter().filter(|effect| {
            let Effect::Send { frame, .. } = effect else {
                return false;
            };
            let (header, _) = PeerHeader::read_from_prefix(frame).unwrap();
            header.command == command::DO_VIEW_CHANGE
        });
        assert_eq!(votes.count(), 2, "both others hear it");
        assert_eq!(primary.log_view, 1, "and that is enough");
    }

    /// A replica that has told of this for long.
    fn told(progress: Progress) -> Told {
        let mut told = Told::default();
        // The view first, then the checkpoint.
        for nth in 0..=2 * u64::from(OFTEN) {
            assert!(told.hear(progress, nth * LONG));
        }
        assert_eq!(told.most(), progress);
        told
    }

    #[test]
    fn views_and_checkpoints_do_not_go_back() {
        let mut told = told((1, 40));
        assert!(told.hear((1, 40), 0) && told.hear((1, 60), 0) && told.hear((2, 20), 0));
        assert!(!told.hear((1, 20), 0), "an earlier checkpoint");
        assert!(!told.hear((0, 60), 0), "an earlier view");
        assert!(told.hear((1, 0), 0), "blocks are missing");
        assert!(
            told.hear((3, 0), 0),
            "its file was lost, and it has joined again"
        );
    }

    #[test]
    fn what_is_told_once_is_forgotten() {
        let mut told = told((1, 40));
        assert!(told.hear((7, 90), 0));
        for nth in 0..2 * u64::from(OFTEN) {
            assert!(told.hear((1, 60), nth * LONG));
        }
        assert_eq!(told.most(), (1, 60));
    }
}
