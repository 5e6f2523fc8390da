//! The ledger answers every request as the model does, byte for byte.

use daftari::ledger::{LedgerInMemory, LedgerOptions};
use quickcheck::{QuickCheck, TestResult};
use vopr::clock::{Clock, PULSE_TIMESTAMPS};
use vopr::generate::{Generator, Request};
use vopr::machine::Machine;
use vopr::model::Model;
use vopr::model::batch::{self, Kind, Op};
use vopr::model::flags;
use vopr::model::layout::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult, Id,
    Layout, QueryFilter, SparseResult, Transfer,
};
use vopr::random::Random;
use vopr::traces::status_name;

const SEEDS: u64 = 600;
const REQUESTS: u32 = 200;
const MEMORY: u64 = 1 << 28;

fn empty() -> LedgerInMemory {
    LedgerInMemory::new(LedgerOptions {
        memory_limit: MEMORY,
        account_cache_size: 0,
    })
}

fn execute(ledger: &mut LedgerInMemory, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
    Machine::execute(ledger, operation, timestamp, body)
}

fn show_event(kind: Kind, event: &[u8]) -> String {
    match kind {
        Kind::CreateAccounts => format!("{:?}", Account::decode(event)),
        Kind::CreateTransfers => format!("{:?}", Transfer::decode(event)),
        Kind::LookupAccounts | Kind::LookupTransfers => format!("{:?}", Id::decode(event)),
        Kind::GetAccountTransfers | Kind::GetAccountBalances => {
            format!("{:?}", AccountFilter::decode(event))
        }
        Kind::QueryAccounts | Kind::QueryTransfers => format!("{:?}", QueryFilter::decode(event)),
        Kind::GetChangeEvents => format!("{:?}", ChangeEventsFilter::decode(event)),
    }
}

fn show_result(op: Op, result: &[u8]) -> String {
    match op.kind {
        Kind::CreateAccounts | Kind::CreateTransfers if op.sparse => {
            let result = SparseResult::decode(result);
            format!("{:?} {result:?}", status_name(op.kind, result.status))
        }
        Kind::CreateAccounts | Kind::CreateTransfers => {
            let result = CreateResult::decode(result);
            format!("{:?} {result:?}", status_name(op.kind, result.status))
        }
        Kind::LookupAccounts | Kind::QueryAccounts => format!("{:?}", Account::decode(result)),
        Kind::LookupTransfers | Kind::QueryTransfers | Kind::GetAccountTransfers => {
            format!("{:?}", Transfer::decode(result))
        }
        Kind::GetAccountBalances => format!("{:?}", AccountBalance::decode(result)),
        Kind::GetChangeEvents => format!("{:?}", ChangeEvent::decode(result)),
    }
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
                let mut events = events;
                events.nth(same)
            };
            let [want_shown, got_shown] =
                [want, got].map(|reply| reply.chunks(size).nth(same).map(|r| show_result(op, r)));
            return format!(
                "batch {at} result {same} of {} and {}\n event {:?}\n model {want_shown:?}\n ledger {got_shown:?}",
                want.len() / size,
                got.len() / size,
                event.map(|event| show_event(op.kind, event)),
            );
        }
    }
    format!("{} and {} batches", want.len(), got.len())
}

/// Expires what is due; now and then too late, or exactly in time.
fn pulses(random: &mut Random, clock: &mut Clock, model: &mut Model, ledger: &mut LedgerInMemory) {
    match (random.below(20), model.pulse_next()) {
        // A request that was prepared before the pulse: the time alone decides.
        (0..=4, _) => return,
        // The next request has an event at the very time of an expiry.
        (5, Some(next)) => {
            clock.advance_to(next - 1 - random.below(8));
            return;
        }
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

/// A request that voids the transfer that expires next, some nanoseconds into the batch.
fn void_next(random: &mut Random, model: &Model) -> Option<Vec<u8>> {
    let next = model.pulse_next()?;
    let expires = |t: &&Transfer| t.timestamp + u64::from(t.timeout) * 1_000_000_000 == next;
    let pending = model.transfers().filter(|t| t.timeout > 0).find(expires)?;
    let void = Transfer {
        id: random.any_128(),
        pending_id: pending.id,
        flags: flags::transfer::VOID,
        ..Transfer::zeroed()
    };
    let mut events = vec![Transfer::zeroed(); random.index(8)];
    events.push(void);
    let batch = events.iter().flat_map(Layout::bytes).collect();
    Some(batch::encode(Transfer::SIZE, &[batch]))
}

fn compare(seed: u64, requests: u32) -> Result<(), String> {
    let mut generator = Generator::new(seed);
    let mut random = Random::stream(seed, 2);
    let mut model = Model::new();
    let mut ledger = empty();
    let mut clock = Clock::default();
    for index in 0..requests {
        let mut request = generator.request();
        if random.percent(2)
            && let Some(body) = void_next(&mut random, &model)
        {
            request = Request {
                pause: 0,
                operation: 147,
                body,
            };
        }
        let operation = request.operation;
        let about = |text: String| format!("seed {seed} request {index} ({operation}): {text}");
        if random.percent(3) {
            ledger.restart();
        }
        clock.advance(request.pause);
        pulses(&mut random, &mut clock, &mut model, &mut ledger);
        if model.pulse_next() != Some(ledger.ledger.pulse_next()).filter(|&next| next != u64::MAX) {
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
