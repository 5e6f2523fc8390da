//! The generator reaches every status that can be reached, and the model conserves money meanwhile.

use std::collections::BTreeMap;

use vopr::clock::Clock;
use vopr::generate::Generator;
use vopr::model::Model;
use vopr::model::batch::{self, Kind, Op};
use vopr::model::layout::{CreateResult, Layout as _};
use vopr::model::status;

type Counts = BTreeMap<u32, u64>;

fn run(seed: u64, requests: u32, accounts: &mut Counts, transfers: &mut Counts) -> u64 {
    let mut generator = Generator::new(seed);
    let mut model = Model::new();
    let mut clock = Clock::default();
    let mut pulses = 0;
    for _ in 0..requests {
        let request = generator.request();
        clock.advance(request.pause);
        while let Some(timestamp) = clock.pulse(&model) {
            model.pulse(timestamp);
            pulses += 1;
        }
        let timestamp = clock.request(request.operation, &request.body);
        let reply = model.execute(request.operation, timestamp, &request.body);
        generator.learn(&request, timestamp, &reply);
        let op = Op::from_code(request.operation).expect("known");
        if op.creates() && op.multi_batch && !op.sparse {
            let counts = if op.kind == Kind::CreateAccounts {
                &mut *accounts
            } else {
                &mut *transfers
            };
            for results in batch::decode(op.result_size(), &reply).expect("valid") {
                for result in results.chunks(CreateResult::SIZE).map(CreateResult::decode) {
                    *counts.entry(result.status).or_default() += 1;
                }
            }
        }
    }
    model.check_conservation().expect("money is conserved");
    pulses
}

#[test]
fn every_status_is_reached() {
    let mut accounts = Counts::new();
    let mut transfers = Counts::new();
    let pulses: u64 = (0..300)
        .map(|seed| run(seed, 200, &mut accounts, &mut transfers))
        .sum();
    assert!(pulses > 100, "{pulses} pulses");
    let mut missing = Vec::new();
    for (name, code) in status::account::ALL {
        if !accounts.contains_key(code) {
            missing.push(format!("create_accounts {name}"));
        }
    }
    for (name, code) in status::transfer::ALL {
        // It would take a time after the year 2126.
        if !transfers.contains_key(code) && *code != status::transfer::OVERFLOWS_TIMEOUT {
            missing.push(format!("create_transfers {name}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
