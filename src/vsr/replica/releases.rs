//! Replicas of one log, which is at one release, run by binaries that may have more.
//!
//! Replicas tell each other the newest release that each has. The log stays at its own, so whoever has a
//! newer one as well is as good as whoever has not.

use super::timers::PATIENCE;
use super::{Effect, Replica};
use crate::constants::release_text;
use crate::vsr::FatalReason;
use crate::vsr::members::Voter;
use crate::wire::header::command;
use crate::wire::{CommonHeader, PeerHeader};

/// That the log of another replica is at a release which this one's is not at.
#[derive(Clone, Copy, Debug)]
pub(super) struct OtherRelease {
    release: u32,
    /// Since when it says nothing else,
    first: u64,
    /// and when it said so last.
    last: u64,
}

impl Replica {
    /// Whether a frame of another replica is about this log: at the same release. A file that was formatted at
    /// another one is as good as one of another cluster.
    pub(super) fn is_of_log(&mut self, common: &CommonHeader) -> bool {
        let of_log = common.release.get() == self.release;
        // Who asks it has forgotten the release, and learns it from the answer.
        let of_recovery = match common.command {
            command::RECOVER => true,
            command::RECOVERY => self.is_recovering(),
            _ => false,
        };
        // A prepare names who made it, not who sends it.
        if !of_log && !of_recovery && common.command != command::PREPARE {
            self.hear_other_log(common);
        }
        of_log || of_recovery
    }

    /// Stops if so many others have a log at another release that they need none of this one, and have said so
    /// for a while: one frame that somebody made up ends nothing.
    fn hear_other_log(&mut self, common: &CommonHeader) {
        // Who recovers hears answers only, and nobody goes by what a standby is at.
        let sender = self.members.voter(common.replica);
        let Some(sender) = sender.filter(|_| !self.is_recovering()) else {
            return;
        };
        let (now, others) = (self.timers.now, common.release.get());
        if self.is_blank_standby() && self.releases.check(others).is_ok() {
            self.release = others;
            return;
        }
        let peer = &mut self.peers[sender.at()];
        let before = peer.release_other.filter(|it| {
            let goes_on = now <= it.last + 2 * PATIENCE;
            it.release == others && goes_on && peer.heard.is_none_or(|heard| heard < it.first)
        });
        peer.release_other = Some(OtherRelease {
            release: others,
            first: before.map_or(now, |before| before.first),
            last: now,
        });
        if before.is_none() {
            let (replica, release) = (common.replica, release_text(others));
            tracing::warn!(
                replica,
                release,
                own = release_text(self.release),
                "another replica has a log at another release: they do not hear each other"
            );
        }
        let same = self.peers.iter().filter(|peer| {
            peer.release_other.is_some_and(|it| {
                let long = it.last >= it.first + 4 * PATIENCE;
                it.release == others && long && !self.timers.due(it.last + 2 * PATIENCE)
            })
        });
        if same.count() >= usize::from(self.quorums.view_change) {
            let own = self.release;
            let reason = FatalReason::ReleaseOfOthers { own, others };
            self.effects.push_back(Effect::Stop(reason));
        }
    }

    /// Another replica tells of the releases that it has.
    pub(super) fn hear_releases(&mut self, from: Voter, message: &PeerHeader) {
        let replica = message.replica;
        // The first release did not say it.
        let newest = message.release_newest.max(message.release).get();
        let known = &mut self.peers[from.at()].release_newest;
        if std::mem::replace(known, newest) == newest {
            return;
        }
        let [newest, own, log] = [newest, self.releases.newest, self.release].map(release_text);
        tracing::info!(replica, newest, own, log, "releases of another replica");
    }

    /// A replica that recovers takes the release of the others' log; whether it can, and this is it.
    pub(super) fn learn_release(&mut self, answer: &PeerHeader, first: bool) -> bool {
        let found = answer.release.get();
        if !first {
            return found == self.release;
        }
        match self.releases.check(found) {
            Ok(()) => self.release = found,
            Err(reason) => self.effects.push_back(Effect::Stop(reason)),
        }
        found == self.release
    }

    /// Whether this is a standby whose file was just made: it goes by the release that the log of the others is
    /// at. What it takes of the log comes with the start of a view, which goes into the superblock together with
    /// the release.
    fn is_blank_standby(&self) -> bool {
        let written = self.view_durable != (0, 0) || self.view_writing.is_some();
        self.members.is_standby() && !written && self.view == 0 && self.syncing.is_none()
    }
}
