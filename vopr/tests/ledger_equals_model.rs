//! The ledger answers every request as the model does, byte for byte.

use daftari::ledger::{Ledger, LedgerOptions};
use quickcheck::{QuickCheck, TestResult};
use vopr::clock::Clock;
use vopr::generate::Generator;
use vopr::machine::Machine;
use vopr::model::Model;
use vopr::model::batch::{self, Op};

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

fn compare(seed: u64, requests: u32) -> Result<(), String> {
    let mut generator = Generator::new(seed);
    let mut model = Model::new();
    let mut ledger = empty();
    let mut clock = Clock::default();
    for index in 0..requests {
        let request = generator.request();
        if index % 37 == 36 {
            ledger = restarted(&ledger);
        }
        clock.advance(request.pause);
        let about = |text: String| {
            format!(
                "seed {seed} request {index} ({}): {text}",
                request.operation
            )
        };
        if model.pulse_due(clock.now()) != ledger.pulse_due(clock.now()) {
            return Err(about("a pulse is due for one only".to_owned()));
        }
        while let Some(timestamp) = clock.pulse(&model) {
            if !ledger.pulse_due(timestamp) {
                return Err(about("a pulse is due for the model only".to_owned()));
            }
            model.pulse(timestamp);
            ledger.pulse(timestamp);
        }
        let timestamp = clock.request(request.operation, &request.body);
        let want = model.execute(request.operation, timestamp, &request.body);
        let got = execute(&mut ledger, request.operation, timestamp, &request.body);
        if want != got {
            return Err(about(difference(
                request.operation,
                &request.body,
                &want,
                &got,
            )));
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
