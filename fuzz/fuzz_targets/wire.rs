//! Any bytes of a connection are a message or a rejection: `cargo fuzz run wire`.
//!
//! The first two bytes choose whether the checksums are repaired, and the operation, so that the
//! fuzzer reaches what lies behind them.
#![no_main]

use daftari::wire::multi_batch::encode;
use daftari::wire::{Batches, ClientMessage, Operation, build, check, check_ping};
use libfuzzer_sys::fuzz_target;

const VIEW: u32 = 3;

fn receive(bytes: &[u8]) {
    match ClientMessage::decode(bytes, 0) {
        Ok(Some((ClientMessage::Request(header, body), size))) => {
            assert!(size <= bytes.len());
            if let Ok(operation) = check(header, body, VIEW) {
                assert!(operation.batches(body).map(<[u8]>::len).sum::<usize>() <= body.len());
                assert!(operation.event_count(body) <= 8190);
            }
        }
        Ok(Some((ClientMessage::Ping(header), _))) => {
            let _outcome = check_ping(header);
        }
        Ok(Some((ClientMessage::Unknown(_), _)) | None) | Err(_) => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    receive(bytes);
    let [choice, code, body @ ..] = bytes else { return };
    let Some(operation) = Operation::from_u8(*code) else { return };
    let body = &body[..body.len().min(daftari::constants::BODY_SIZE_MAX)];
    let session = u32::from(operation != Operation::Register);
    let state = build::ClientState {
        cluster: 0,
        view: u32::from(*choice & 7),
        release: daftari::constants::RELEASE,
        client: 9,
        session: session.into(),
        request: session,
        parent: Default::default(),
    };
    receive(&build::request(&state, operation, body));
    if operation.is_multi_batch()
        && let Ok(batches) = Batches::decode(operation.event_size(), body)
    {
        let parts: Vec<&[u8]> = batches.collect();
        assert_eq!(encode(operation.event_size(), &parts), body);
    }
});
