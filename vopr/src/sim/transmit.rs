//! Frames on their way between the clients and the replica.

use super::describe;
use super::draws::Draws;
use super::network::Direction;
use super::options::MS;
use super::world::{World, now};
use crate::cluster::network::Place;
use crate::random::Random;
use crate::seed::injection::Family;
use crate::timeline::Message;
use bytes::Bytes;
use daftari::io::ConnectionId;

impl World {
    /// A frame is sent from or to a client: when it arrives, if it does.
    pub fn transmit(
        &mut self,
        connection: ConnectionId,
        (direction, client): (Direction, usize),
        frame: &Bytes,
    ) -> Option<u64> {
        let (delay, lost) = self.network.draw(&mut self.random.network);
        let lost = lost && {
            let what = || format!("{}, {direction:?} {client}", describe::frame(frame));
            self.stage.inject(Family::FrameLost, None, what)
        };
        let at = if lost {
            None
        } else {
            self.network.pass(connection, direction, now() + delay)
        };
        self.record_message((direction, client), frame, at);
        at
    }

    /// When a frame that a client sends comes once more, if it does.
    pub fn replays(&mut self, client: usize, frame: &Bytes) -> Option<u64> {
        let random = &mut self.random.network;
        if !random.chance(self.network.faults.replayed) {
            return None;
        }
        let later = now() + Random::new(random.any()).exponential(1500 * MS);
        let what = || format!("{} of client {client}", describe::frame(frame));
        if !self.stage.inject(Family::FrameReplayed, None, what) {
            return None;
        }
        self.record_message((Direction::ToServer, client), frame, Some(later));
        Some(later)
    }

    fn record_message(
        &mut self,
        (direction, client): (Direction, usize),
        frame: &Bytes,
        arrives: Option<u64>,
    ) {
        let Some(recording) = &mut self.stage.recording else {
            return;
        };
        let (replica, client) = (Place::Replica(0), Place::Client(client));
        let (from, to) = match direction {
            Direction::ToServer => (client, replica),
            Direction::ToClient => (replica, client),
        };
        recording.message(Message {
            sent: now(),
            arrives,
            from,
            to,
            command: describe::command(frame),
            text: describe::frame(frame),
        });
    }
}
