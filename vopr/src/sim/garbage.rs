//! Frames that no client of ours would send: the replica ignores each, or evicts for its reason.

use super::draws::Draws;
use super::world::World;
use crate::cluster::network::Place;
use crate::random::Random;
use crate::seed::injection::Family;
use bytes::Bytes;
use daftari::constants;
use daftari::wire::frame::concat;
use daftari::wire::header::command;
use daftari::wire::{ClientState, Evicted, Operation, PingClientHeader, RequestHeader};
use storage_format::Checksum;

/// A frame, and the evictions that it earns.
#[derive(Clone, Debug)]
pub struct Garbage {
    /// The frame.
    pub frame: Bytes,
    /// The client that it names.
    pub client: u128,
    /// Reasons for which that may be evicted.
    pub reasons: Vec<u8>,
}

/// Sends one of them before a request of `client`, now and then, and pings.
pub fn maybe_send(world: &mut World, client: usize) {
    if world.random.client.chance(20) {
        let frame = daftari::wire::build::ping(&world.clients[client].state, 42);
        world.send(client, frame);
    }
    let on = world.scenario.phase == super::scenario::Phase::Run;
    if !on || !world.random.client.chance(world.options.garbage) {
        return;
    }
    let own = &mut Random::new(world.random.client.any());
    let garbage = draw(&world.clients[client].state, own);
    let what = || super::describe::frame(&garbage.frame);
    let place = Some(Place::Client(client));
    if !world.stage.inject(Family::Garbage, place, what) {
        return;
    }
    for reason in garbage.reasons {
        world.checker.on_provoked(garbage.client, reason);
    }
    // A wrong frame that were executed all the same would be in the log: let the checker know it.
    world.checker.history.on_request_made(&garbage.frame);
    world.send(client, garbage.frame);
}

/// Draws a frame that a client in that state, or a stranger, would not send.
pub fn draw(known: &ClientState, random: &mut Random) -> Garbage {
    let stranger = ClientState {
        client: random.id(),
        ..*known
    };
    let state = if random.chance(500) { *known } else { stranger };
    let choice = random.below(14);
    if choice == 13 {
        let mut header = PingClientHeader::zeroed();
        header.command = command::PING_CLIENT;
        header.size = 256.into();
        header.cluster = state.cluster.into();
        header.release = constants::RELEASE.into();
        header.client = state.client.into();
        header.reserved[5] = 1;
        return Garbage {
            frame: concat(&header.sealed(&[]), &[]),
            client: state.client,
            reasons: Vec::new(),
        };
    }
    let (header, body, reason) = wrong_request(&state, choice);
    let mut reasons: Vec<u8> = reason.map(Evicted::code).into_iter().collect();
    if state.session == 0 {
        // It names a session that never was, and may arrive after the client has registered.
        reasons.push(Evicted::SessionTooLow.code());
    }
    Garbage {
        frame: concat(&header.sealed(&body), &body),
        client: state.client,
        reasons,
    }
}

/// A request that is wrong in one way, with the eviction that it earns.
fn wrong_request(state: &ClientState, choice: u64) -> (RequestHeader, Vec<u8>, Option<Evicted>) {
    let mut body = vec![0; 16];
    let mut header = RequestHeader::zeroed();
    header.command = command::REQUEST;
    header.cluster = state.cluster.into();
    header.view = state.view.into();
    header.release = constants::RELEASE.into();
    header.parent = u128::from_le_bytes(state.parent.0).into();
    header.client = state.client.into();
    header.session = state.session.max(1).into();
    header.request = state.request.max(1).into();
    header.operation = Operation::LookupAccountsUnbatched.code();
    let mut reason = None;
    match choice {
        0 => header.view = (state.view + 1_000_000).into(),
        1 => {
            header.operation = 200;
            reason = Some(Evicted::InvalidOperation);
        }
        2 => {
            header.release = (constants::RELEASE_CLIENT_MIN - 1).into();
            reason = Some(Evicted::ReleaseTooLow);
        }
        3 => {
            header.release = (constants::RELEASE_CLIENT_MAX + 1).into();
            reason = Some(Evicted::ReleaseTooHigh);
        }
        4 => header.epoch = 1.into(),
        5 => {
            body.push(0);
            reason = Some(Evicted::InvalidBody);
        }
        6 => header.session = (state.session + 1_000_000).into(),
        7 => header.request = (state.request + 7).into(),
        8 => {
            header.request = 0.into();
        }
        9 => {
            let wrong = Checksum([7; 16]);
            header.parent = u128::from_le_bytes(wrong.0).into();
            header.request = (state.request + 1).into();
        }
        10 => header.timestamp = 1.into(),
        11 => header.command = 77,
        _ => {
            header.operation = Operation::Pulse.code();
            body.clear();
            reason = Some(Evicted::InvalidOperation);
        }
    }
    header.size = u32::try_from(256 + body.len()).expect("small").into();
    (header, body, reason)
}
