//! What the clients do: they send to whom they take for the primary, and to the others in turn when no
//! answer comes.

use super::network::Place;
use super::phases::{self, Phase};
use super::world::{Action, World, kind};
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::client::Received;
use crate::sim::draws::Draws;
use crate::sim::garbage;
use crate::sim::options::MS;
use crate::sim::world::now;
use crate::timeline::Mark;
use bytes::Bytes;
use daftari::wire::header::command;
use daftari::wire::{CommonHeader, Evicted, PongClientHeader};
use zerocopy::FromBytes;

/// How long a client waits for the first answer.
const TIMEOUT: u64 = 400 * MS;
/// How long it waits to ask for its next request while a replica lags.
const HELD: u64 = 50 * MS;

impl World {
    /// A client sends a frame to a replica.
    fn send(&mut self, client: usize, replica: u8, frame: Bytes) {
        self.trace(|| {
            let what = crate::sim::describe::frame(&frame);
            format!("client {client} -> {replica}: {what}")
        });
        let connection = self.network.connect(client, replica);
        let link = (Place::Client(client), Place::Replica(replica));
        let faults = self.phases.links(&self.options.links);
        if let Some(later) = self.replays(link, &faults, &frame) {
            self.at(later, Action::Replay(replica, frame.clone()));
        }
        if let Some(at) = self.transmit(link, &faults, &frame) {
            self.at(at, Action::FromClient(replica, client, connection, frame));
        }
    }

    /// The replica that a client asks when it has asked so many before.
    fn asked(&self, client: usize, attempts: u32) -> u8 {
        let view = u64::from(self.clients[client].state.view) + u64::from(attempts);
        // A standby passes on what it gets.
        let members = match attempts {
            0 => self.options.replicas,
            _ => self.options.members(),
        };
        u8::try_from(view % u64::from(members)).expect("a few")
    }

    /// A frame arrives at a client.
    pub fn on_client_receive(&mut self, index: usize, frame: &Bytes) {
        self.note(kind::CLIENT, index, frame);
        let client = &mut self.clients[index];
        let (header, _) = CommonHeader::read_from_prefix(frame).expect("a whole frame");
        let received = match header.command {
            command::REPLY => {
                let (header, received) = client.on_reply(frame, &mut self.generator);
                if let Received::Reply(op) = received {
                    self.checker.on_reply_received(header.request_checksum, op);
                }
                received
            }
            command::EVICTION => client.on_eviction(frame),
            command::PONG_CLIENT => {
                let pong = PongClientHeader::read_from_bytes(frame).expect("256 bytes");
                client.state.view = client.state.view.max(pong.view.get());
                Received::Ignored
            }
            _ => Received::Ignored,
        };
        match received {
            Received::Reply(op) => {
                self.tell(Some(Place::Client(index)), Mark::Answer, || {
                    format!("client {index} has its answer, of op {op}")
                });
                self.phases.on_reply(now());
                let pause = self.random.client.exponential(20 * MS);
                self.arm(index, pause);
            }
            Received::Evicted(reason) => {
                self.tell(Some(Place::Client(index)), Mark::Answer, || {
                    format!("client {index} is evicted, reason {reason}")
                });
                // Under another id: a late copy of its first register request would make a session that is
                // not this one's, and nobody tells the two apart.
                self.clients[index].start_again(false, &mut self.random.client);
                self.arm(index, MS);
            }
            Received::Ignored => {}
        }
    }

    /// Sets a client's timer; an older one means nothing from now on.
    pub fn arm(&mut self, index: usize, delay: u64) {
        let generation = self.clients[index].rearm();
        self.at(now() + delay, Action::Timer(index, generation));
    }

    /// A client's timer fires: it asks again, or sends its next request.
    pub fn on_timer(&mut self, index: usize, generation: u64) {
        if self.clients[index].generation != generation {
            return;
        }
        if self.clients[index].in_flight.is_some() {
            self.retry(index);
            return;
        }
        if self.phases.phase == Phase::Faults && self.checker.is_held() {
            self.arm(index, HELD);
            return;
        }
        let Some(content) = self.clients[index].script.pop_front() else {
            if let Some((pause, content)) = phases::next_request(self, index) {
                self.clients[index].script.push_front(content);
                self.arm(index, pause);
            }
            return;
        };
        if self.random.client.chance(50) {
            self.ping(index);
        }
        let faults = self.phases.phase == Phase::Faults;
        if faults && self.random.client.chance(self.options.garbage) {
            self.send_garbage(index);
        }
        let frame = self.clients[index].make_request(content);
        self.tell(Some(Place::Client(index)), Mark::Request, || {
            let what = crate::sim::describe::frame(&frame);
            format!("client {index} begins {what}")
        });
        self.checker.history.on_request_made(&frame);
        let replica = self.asked(index, 0);
        self.send(index, replica, frame);
        self.arm(index, TIMEOUT);
    }

    /// A replica gets a frame that no client would send.
    fn send_garbage(&mut self, index: usize) {
        let own = &mut Random::new(self.random.client.any());
        let garbage = garbage::draw(&self.clients[index].state, own);
        let replica = own.below(u64::from(self.options.members()));
        let replica = u8::try_from(replica).expect("a few");
        let what = || crate::sim::describe::frame(&garbage.frame);
        if !self
            .stage
            .inject(Family::Garbage, Some(Place::Client(index)), what)
        {
            return;
        }
        if self.clients[index].state.session == 0 {
            // It names a session, and the client may have got one when it arrives.
            let reason = Evicted::NoSession.code();
            self.checker.on_provoked(garbage.client, reason);
        }
        for reason in garbage.reasons {
            self.checker.on_provoked(garbage.client, reason);
        }
        // A wrong frame that were executed all the same would be in the log.
        self.checker.history.on_request_made(&garbage.frame);
        self.send(index, replica, garbage.frame);
    }

    /// A client asks a replica what the view is.
    fn ping(&mut self, index: usize) {
        let replica = self.random.client.below(u64::from(self.options.members()));
        let replica = u8::try_from(replica).expect("a few");
        let frame = daftari::wire::build::ping(&self.clients[index].state, 42);
        self.send(index, replica, frame);
    }

    fn retry(&mut self, index: usize) {
        let random = &mut self.random.client;
        let faults = self.phases.phase == Phase::Faults;
        if faults && random.chance(self.options.client_crashes) {
            let own = &mut Random::new(random.any());
            let place = Some(Place::Client(index));
            let what = || format!("client {index} dies");
            if self.stage.inject(Family::ClientCrash, place, what) {
                self.clients[index].start_again(false, own);
                self.arm(index, 10 * MS);
                return;
            }
        }
        let client = &mut self.clients[index];
        let in_flight = client.in_flight.as_mut().expect("the caller looked");
        in_flight.attempts += 1;
        let (attempts, frame) = (in_flight.attempts, in_flight.frame.clone());
        let replica = self.asked(index, attempts);
        let random = &mut self.random.client;
        if random.chance(200) {
            self.network.disconnect(index, replica);
        }
        let backoff = TIMEOUT << attempts.min(3);
        let jitter = random.below(backoff / 2);
        self.ping(index);
        self.send(index, replica, frame);
        self.arm(index, backoff / 2 + jitter);
    }
}
