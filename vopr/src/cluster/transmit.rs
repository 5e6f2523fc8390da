//! Frames on their way: when each arrives, if it does, and whether it comes once more.

use super::links::Fate;
use super::network::{LinkFaults, Place};
use super::phases::Phase;
use super::world::World;
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::describe;
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use crate::sim::world::now;
use crate::timeline::Message;
use bytes::Bytes;

impl World {
    /// A frame is sent over a link: when it arrives, if it does.
    pub fn transmit(
        &mut self,
        link: (Place, Place),
        faults: &LinkFaults,
        frame: &Bytes,
    ) -> Option<u64> {
        let (mut delay, mut lost) = self.network.draw(link, faults, &mut self.random.network);
        match self.fate(link, frame) {
            Fate::Lost => lost = true,
            Fate::Late(later) => delay += later,
        }
        let lost = lost && {
            let what = || on_link(link, frame);
            self.stage.inject(Family::FrameLost, None, what)
        };
        let at = if lost {
            None
        } else {
            self.network.pass(link, now() + delay, faults.ordered)
        };
        if let Some(at) = at.filter(|_| self.has_queues()) {
            self.network.note_under_way(link, at);
        }
        let at = self.pass(link, frame, at);
        self.record_message(link, frame, at);
        at
    }

    /// What becomes of a frame because of the link that it takes.
    fn fate(&mut self, link: (Place, Place), frame: &Bytes) -> Fate {
        if self.phases.phase != Phase::Faults {
            return Fate::Late(0);
        }
        let under_way = match self.has_queues() {
            true => self.network.under_way(link, now()),
            false => 0,
        };
        let troubles = &self.options.troubles;
        troubles.fate(link, now(), frame.len(), under_way)
    }

    /// Whether it matters how many frames are on their way over a link.
    fn has_queues(&self) -> bool {
        self.phases.phase == Phase::Faults && self.options.troubles.has_queues()
    }

    /// When a frame that is sent over a link comes once more, if it does.
    pub fn replays(
        &mut self,
        link: (Place, Place),
        faults: &LinkFaults,
        frame: &Bytes,
    ) -> Option<u64> {
        let random = &mut self.random.network;
        if !random.chance(faults.replayed) {
            return None;
        }
        let later = now() + Random::new(random.any()).exponential(1500 * MS);
        let what = || on_link(link, frame);
        if !self.stage.inject(Family::FrameReplayed, None, what) {
            return None;
        }
        self.record_message(link, frame, Some(later));
        Some(later)
    }

    fn record_message(&mut self, (from, to): (Place, Place), frame: &Bytes, at: Option<u64>) {
        let Some(recording) = &mut self.stage.recording else {
            return;
        };
        recording.message(Message {
            sent: now(),
            arrives: at,
            from,
            to,
            command: describe::command(frame),
            text: describe::frame(frame),
        });
        if let Place::Replica(replica) = from {
            self.processes[usize::from(replica)].spoke = true;
            self.observe(replica);
        }
    }
}

/// A frame, and its way.
fn on_link((from, to): (Place, Place), frame: &Bytes) -> String {
    format!("{} from {from:?} to {to:?}", describe::frame(frame))
}
