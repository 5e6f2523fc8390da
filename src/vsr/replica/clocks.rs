//! The time of day: replicas tell each other theirs, and a primary goes by what a quorum agrees on.
//!
//! A primary that has no time of day gives out no timestamps, so its requests wait. If another replica has
//! one, or if nobody is heard at all, it stops saying that it is there, and another takes over; when none
//! has, a change would help nobody.

use super::timers::{HEARTBEAT, PATIENCE, PING};
use super::{Peer, Replica};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::vsr::members::Voter;
use crate::vsr::message;
use crate::wire::PeerHeader;
use crate::wire::header::command;

/// A time without a time of day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Astray {
    /// Since when, on the monotonic clock.
    since: u64,
    /// Whether the operator was told.
    pub(super) told: bool,
}

impl Replica {
    /// The time of day, in nanoseconds, if a quorum agrees on it.
    pub(super) fn time_of_day(&self) -> Option<u64> {
        let (now, realtime) = (self.timers.now, self.timers.realtime);
        if planted(Bug::TrustOwnClock) {
            return Some(realtime);
        }
        self.clock.time(now, realtime)
    }

    /// Asks the others for their time of day when that is due, and notices when a quorum agrees no more.
    pub(super) fn look_at_clocks(&mut self) {
        let now = self.timers.now;
        // A standby asks all the same, and hears whether it has the checkpoint of the others.
        if self.members.is_standby() || self.time_of_day().is_some() {
            if self.astray.take().is_some_and(|astray| astray.told) {
                mark(Mark::ClocksAgreeAgain);
                tracing::info!("the clocks of a quorum agree again");
            }
        } else {
            mark(Mark::ClocksDisagree);
            let since = now;
            let told = false;
            self.astray.get_or_insert(Astray { since, told });
            self.tell_of_clocks();
        }
        if self.timers.due(self.timers.ping) && !self.is_recovering() {
            let settled = self.astray.is_none();
            self.timers.ping = now + if settled { PING } else { HEARTBEAT };
            let mut header = self.peer_header(command::PING);
            self.ask_time(&mut header);
            self.broadcast(&message::frame(header, &[]));
        }
    }

    /// Says once that there has been no time of day for long.
    fn tell_of_clocks(&mut self) {
        let long = self.is_long_astray();
        let Some(astray) = self.astray.as_mut().filter(|astray| long && !astray.told) else {
            return;
        };
        astray.told = true;
        let (now, realtime) = (self.timers.now, self.timers.realtime);
        let differences = self.clock.differences(now, realtime);
        tracing::warn!(
            ?differences,
            "no quorum of clocks agrees on the time of day (other replicas are ahead by so many \
             milliseconds): as primary this replica takes no requests"
        );
    }

    /// Adds to a message what its answer brings back, and what identifies the checkpoint.
    pub(super) fn ask_time(&self, header: &mut PeerHeader) {
        header.checksum_item = self.checkpoint_identity();
        header.nonce = self.nonce.into();
        header.monotonic = self.timers.now.into();
    }

    /// Another replica asks. The clock of a standby counts for nothing, so nobody is told of it.
    pub(super) fn on_ping_of_replica(&mut self, from: Voter, ping: &PeerHeader) {
        self.hear_checkpoint(from, ping);
        if !self.members.is_standby() || planted(Bug::StandbyTellsTime) {
            self.tell_time(ping);
        }
    }

    /// Answers with the time of day here.
    pub(super) fn tell_time(&mut self, ping: &PeerHeader) {
        let mut pong = self.peer_header(command::PONG);
        pong.checksum_item = self.checkpoint_identity();
        pong.nonce = ping.nonce;
        pong.monotonic = ping.monotonic;
        pong.realtime = self.timers.realtime.into();
        self.add_told(&mut pong, ping.replica);
        self.send_peer(ping.replica, message::frame(pong, &[]));
    }

    pub(super) fn on_pong(&mut self, from: Voter, pong: &PeerHeader) {
        self.hear_checkpoint(from, pong);
        // Monotonic clocks begin anew with the machine, so only this process can have asked.
        if pong.nonce.get() != self.nonce {
            mark(Mark::PongForOther);
        } else {
            self.hear_told(from, pong);
            let (asked, now) = (pong.monotonic.get(), self.timers.now);
            self.clock.learn(from, asked, now, pong.realtime.get());
        }
    }

    /// Whether this replica has had no time of day for so long that somebody should hear of it.
    fn is_long_astray(&self) -> bool {
        let due = |astray: &Astray| self.timers.due(astray.since + 2 * PATIENCE);
        self.astray.as_ref().is_some_and(due)
    }

    /// Whether another replica should be the primary, since this one has had no time of day for long.
    pub(super) fn another_has_time(&self) -> bool {
        if !self.is_long_astray() {
            return false;
        }
        let mut heard = self.peers_heard();
        let nobody = heard.clone().next().is_none();
        if nobody {
            mark(Mark::NobodyHeard);
        }
        let another = heard.any(|peer| peer.synchronized);
        if another {
            mark(Mark::AnotherHasTime);
        }
        nobody || another
    }

    /// Those of the other replicas that have been heard lately.
    pub(super) fn peers_heard(&self) -> impl Iterator<Item = &Peer> + Clone {
        self.peers.iter().filter(|peer| self.is_heard(peer))
    }

    /// Whether another replica has been heard lately.
    pub(super) fn is_heard(&self, peer: &Peer) -> bool {
        let fresh = |heard: u64| !self.timers.due(heard + 2 * PATIENCE);
        peer.heard.is_some_and(fresh)
    }
}
