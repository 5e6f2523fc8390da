//! Replicas of one log, which is at one release, run by binaries that may have more.
//!
//! Replicas tell each other the newest release that each has. The log stays at its own, so whoever has a
//! newer one as well is as good as whoever has not.

use super::{Effect, Replica};
use crate::constants::release_text;
use crate::vsr::FatalReason;
use crate::vsr::members::Voter;
use crate::wire::header::command;
use crate::wire::{CommonHeader, PeerHeader};

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

    /// Stops if so many others have a log at another release that they need none of this one.
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
        if self.other_releases.hear(sender.index(), others, now) {
            let (replica, release) = (common.replica, release_text(others));
            tracing::warn!(
                replica,
                release,
                own = release_text(self.release),
                "another replica has a log at another release: they do not hear each other"
            );
        }
        if self.other_releases.count(others, now) >= usize::from(self.quorums.view_change) {
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
        self.other_releases.agree(replica);
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
