//! The ledger answers every request as the model does, byte for byte.

use daftari::ledger::{Ledger, LedgerOptions};
use quickcheck::{QuickCheck, TestResult};
use vopr::clock::{Clock, PULSE_TIMESTAMPS};
use vopr::generate::Generator;
use vopr::machine::Machine;
use vopr::model::Model;
use vopr::model::batch::{self, Op};
use vopr::random::Random;

const SEEDS: u64 = 600;
const REQUESTS: u32 = 200;
const MEMORY: u64 = 1 << 28;

fn empty() -> Ledger {
    Ledger::new(LedgerOptions {
        memory_limit: MEMORY,
    })
}

fn execute(ledger: &mut Ledger, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
    Machine::execute(ledger, operation, timestamp, body)
}

/// The ledger as it is after a restart: its tables loaded, all else made from them.
fn restarted(ledger: &Ledger) -> Ledger {
    let mut after = empty();
    for (from, to) in ledger.tables().into_iter().zip(after.tables_mut()) {
        for chunk in 0..from.chunk_count() {
            to.load_chunk(from.chunk_bytes(chunk))
                .expect("chunks in their order");
        }
    }
    after
        .restore(&ledger.state())
        .expect("tables that fit each other");
    after
}

/// The first element of the replies that differs.
fn difference(operation: u8, body: &[u8], want: &[u8], got: &[u8]) -> String {
    let op = Op::from_code(operation).expect("known");
    let cut = |size, bytes| {
        if op.multi_batch {
            batch::decode(size, bytes)
        } else {
            Some(vec![bytes])
        }
    };
    let (Some(want), Some(got)) = (cut(op.result_size(), want), cut(op.result_size(), got)) else {
        return format!("malformed: {} bytes, not {}", got.len(), want.len());
    };
    let requests = cut(op.event_size(), body).expect("valid");
    for (at, ((want, got), request)) in want.iter().zip(&got).zip(&requests).enumerate() {
        let size = op.result_size();
        let same = want
            .chunks(size)
            .zip(got.chunks(size))
            .take_while(|(a, b)| a == b)
            .count();
        if want != got {
            let events = request.chunks(op.event_size());
            let event = if op.queries() {
                events.last()
            } else {
                events.skip(same).next()
            };
            return format!(
                "batch {at} result {same} of {} and {}\n event {event:x?}\n model {:x?}\n ledger {:x?}",
                want.len() / size,
                got.len() / size,
                want.chunks(size).nth(same),
                got.chunks(size).nth(same)
            );
        }
    }
    format!("{} and {} batches", want.len(), got.len())
}

/// Expires what is due; now and then too late, or exactly in time.
fn pulses(random: &mut Random, clock: &mut Clock, model: &mut Model, ledger: &mut Ledger) {
    match (random.below(20), model.pulse_next()) {
        // A request that was prepared before the pulse: the time alone decides.
        (0..=4, _) => return,
        // The next request has an event at the very time of an expiry.
        (5, Some(next)) => clock.advance_to(next - 1 - random.below(8)),
        // So has the pulse itself.
        (6, Some(next)) => {
            clock.advance_to(next.saturating_sub(PULSE_TIMESTAMPS));
            let timestamp = clock.prepare(PULSE_TIMESTAMPS);
            model.pulse(timestamp);
            ledger.pulse(timestamp);
        }
        _ => {}
    }
    while let Some(timestamp) = clock.pulse(model) {
        model.pulse(timestamp);
        ledger.pulse(timestamp);
    }
}

fn compare(seed: u64, requests: u32) -> Result<(), String> {
    let mut generator = Generator::new(seed);
    let mut random = Random::stream(seed, 2);
    let mut model = Model::new();
    let mut ledger = empty();
    let mut clock = Clock::default();
    for index in 0..requests {
        let request = generator.request();
        let operation = request.operation;
        let about = |text: String| format!("seed {seed} request {index} ({operation}): {text}");
        if random.percent(3) {
            ledger = restarted(&ledger);
        }
        clock.advance(request.pause);
        pulses(&mut random, &mut clock, &mut model, &mut ledger);
        if model.pulse_next() != Some(ledger.pulse_next()).filter(|&next| next != u64::MAX) {
            return Err(about("the next pulse is not at the same time".to_owned()));
        }
        let timestamp = clock.request(operation, &request.body);
        let want = model.execute(operation, timestamp, &request.body);
        let got = execute(&mut ledger, operation, timestamp, &request.body);
        if want != got {
            return Err(about(difference(operation, &request.body, &want, &got)));
        }
        generator.learn(&request, timestamp, &want);
    }
    model.check_conservation()
}

#[test]
fn the_ledger_equals_the_model() {
    let failures: Vec<String> = (0..SEEDS)
        .filter_map(|seed| compare(seed, REQUESTS).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} seeds fail; the first:\n{}",
        failures.len(),
        failures[0]
    );
}

#[test]
fn the_ledger_equals_the_model_for_any_seed() {
    fn property(seed: u64) -> TestResult {
        compare(seed, REQUESTS).map_or_else(TestResult::error, |()| TestResult::passed())
    }
    QuickCheck::new()
        .tests(200)
        .quickcheck(property as fn(u64) -> TestResult);
}
