//! The generator asks in all ways: every subset of fields, with and without bounds, in both
//! directions, with small and large limits; and both kinds of answers come.

use std::collections::BTreeSet;

use vopr::clock::Clock;
use vopr::generate::{Generator, combinations};
use vopr::model::Model;
use vopr::model::batch::{self, Kind, Op};
use vopr::model::layout::{AccountFilter, Layout as _, QueryFilter};

/// What a query was like: operation, subset of fields, bounds, direction, and whether it found
/// something.
type Way = (u8, u32, (bool, bool), bool, bool);
/// Operation, subset of fields, limit.
type Limited = (u8, u32, u32);

const SEEDS: u64 = 4000;
const REQUESTS: u32 = 300;
const LIMITS: [u32; 5] = [1, 2, 10, 8188, 8189];

#[derive(Default)]
struct Seen {
    ways: BTreeSet<Way>,
    limits: BTreeSet<Limited>,
}

impl Seen {
    fn note(&mut self, op: Op, modern: u8, filter: &[u8], found: bool) {
        let by_fields = matches!(op.kind, Kind::QueryAccounts | Kind::QueryTransfers);
        let (min, max, limit, flags, valid) = if by_fields {
            let f = QueryFilter::decode(filter);
            let valid = f.reserved == [0; 6] && f.flags < 2;
            (f.timestamp_min, f.timestamp_max, f.limit, f.flags, valid)
        } else {
            let f = AccountFilter::decode(filter);
            let valid = f.reserved == [0; 58] && f.flags < 8;
            (
                f.timestamp_min,
                f.timestamp_max,
                f.limit,
                f.flags >> 2,
                valid,
            )
        };
        if !valid || limit == 0 {
            return;
        }
        let subset = combinations::subset(op, filter);
        let bounds = (min != 0, max != 0);
        self.ways
            .insert((modern, subset, bounds, flags & 1 == 1, found));
        self.limits.insert((modern, subset, limit));
    }

    fn run(&mut self, seed: u64) {
        let mut generator = Generator::new(seed);
        let mut model = Model::new();
        let mut clock = Clock::default();
        for _ in 0..REQUESTS {
            let request = generator.request();
            clock.advance(request.pause);
            while let Some(timestamp) = clock.pulse(&model) {
                model.pulse(timestamp);
            }
            let timestamp = clock.request(request.operation, &request.body);
            let reply = model.execute(request.operation, timestamp, &request.body);
            generator.learn(&request, timestamp, &reply);
            let op = Op::from_code(request.operation).expect("known");
            let Some(modern) = modern(op.kind) else {
                continue;
            };
            let cut = |size, bytes| {
                if op.multi_batch {
                    batch::decode(size, bytes).expect("valid")
                } else {
                    vec![bytes]
                }
            };
            let filters = cut(op.event_size(), &request.body);
            for (filter, reply) in filters.into_iter().zip(cut(op.result_size(), &reply)) {
                if !filter.is_empty() {
                    self.note(op, modern, filter, !reply.is_empty());
                }
            }
        }
    }
}

/// The number of a query in today's protocol.
fn modern(kind: Kind) -> Option<u8> {
    match kind {
        Kind::GetAccountTransfers => Some(142),
        Kind::GetAccountBalances => Some(143),
        Kind::QueryAccounts => Some(144),
        Kind::QueryTransfers => Some(145),
        Kind::CreateAccounts
        | Kind::CreateTransfers
        | Kind::LookupAccounts
        | Kind::LookupTransfers
        | Kind::GetChangeEvents => None,
    }
}

#[test]
fn every_combination_of_filters_is_asked_and_finds_something_and_nothing() {
    let mut seen = Seen::default();
    (0..SEEDS).for_each(|seed| seen.run(seed));
    let mut missing = Vec::new();
    for operation in 142..=145 {
        let subsets = if operation < 144 { 16 } else { 32 };
        for subset in 0..subsets {
            for ways in 0..16_u32 {
                let [min, max, reversed, found] = [0, 1, 2, 3].map(|bit| ways >> bit & 1 == 1);
                let way = (operation, subset, (min, max), reversed, found);
                // Who asks for nothing in particular finds something, unless there is nothing.
                let all = operation >= 144 && subset == 0 && !min && !max && !found;
                if !all && !seen.ways.contains(&way) {
                    missing.push(format!("{way:?}"));
                }
            }
            for limit in LIMITS {
                if !seen.limits.contains(&(operation, subset, limit)) {
                    missing.push(format!("{operation} {subset:#b} limit {limit}"));
                }
            }
        }
    }
    let count = missing.len();
    assert!(missing.is_empty(), "{count} are missing: {missing:#?}");
}
