//! How long does the ledger take to execute a batch of 8,189 transfers?
//!
//! One iteration is one batch, on 10,000 accounts and a ledger that already holds two million
//! transfers, and grows; divide by 8,189 for the time of one transfer.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use daftari::ledger::{LedgerInMemory, LedgerOptions};
use daftari::wire::multi_batch::encode;
use daftari::wire::{Account, Operation, Transfer};
use std::cell::{Cell, RefCell};
use zerocopy::IntoBytes;

const ACCOUNTS: u64 = 10_000;
const BATCH: u64 = 8_189;
const WARM_BATCHES: u64 = 245;

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    (value ^ (value >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53)
}

fn accounts() -> Vec<u8> {
    let accounts: Vec<Account> = (1..=ACCOUNTS)
        .map(|id| Account {
            id: u128::from(id).into(),
            ledger: 1.into(),
            code: 1.into(),
            ..Account::zeroed()
        })
        .collect();
    accounts.as_bytes().to_vec()
}

fn transfers(batch: u64, random: bool) -> Vec<u8> {
    let first = batch * BATCH + 1;
    let transfers: Vec<Transfer> = (first..first + BATCH)
        .map(|number| {
            let debit = mix(number) % ACCOUNTS;
            let credit = (debit + 1 + mix(!number) % (ACCOUNTS - 1)) % ACCOUNTS;
            let id = u128::from(number);
            let scattered = u128::from(mix(number)) << 64 | id;
            Transfer {
                id: if random { scattered } else { id }.into(),
                debit_account_id: u128::from(debit + 1).into(),
                credit_account_id: u128::from(credit + 1).into(),
                amount: u128::from(number % 1000 + 1).into(),
                ledger: 1.into(),
                code: 1.into(),
                ..Transfer::zeroed()
            }
        })
        .collect();
    encode(128, &[transfers.as_bytes()])
}

fn execute(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("execute");
    group.throughput(Throughput::Elements(BATCH));
    group.sample_size(10);
    for (name, random) in [("sequential ids", false), ("random ids", true)] {
        let ledger = RefCell::new(LedgerInMemory::new(LedgerOptions {
            memory_limit: 16 << 30,
            account_cache_size: 64 << 20,
        }));
        let timestamp = Cell::new(1_u64 << 60);
        let batches = Cell::new(0);
        let run = |operation: Operation, body: &[u8]| {
            let mut reply = Vec::new();
            timestamp.set(timestamp.get() + 10 * BATCH);
            ledger
                .borrow_mut()
                .execute(operation, timestamp.get(), body, &mut reply);
            reply
        };
        for chunk in accounts().chunks(1000 * 128) {
            let _ = run(Operation::CreateAccounts, &encode(128, &[chunk]));
        }
        let next = || {
            batches.set(batches.get() + 1);
            transfers(batches.get(), random)
        };
        for _ in 0..WARM_BATCHES {
            let _ = run(Operation::CreateTransfers, &next());
        }
        let _ = group.bench_function(name, |bencher| {
            bencher.iter_batched(
                next,
                |body| {
                    let reply = run(Operation::CreateTransfers, &body);
                    assert!(reply[8..12] == [0xFF; 4], "the transfers are created");
                    reply
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, execute);
criterion_main!(benches);
