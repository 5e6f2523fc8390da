//! How do the time of a transfer and of the slowest batch develop while a ledger grows?
//!
//! `cargo bench --no-default-features --bench growth -- [MILLIONS] [sequential|random|pending]`
//!
//! Times are those of the processor, so that other processes disturb less (Linux only).
#![expect(clippy::print_stdout, reason = "a command line tool")]

use daftari::ledger::{LedgerInMemory, LedgerOptions};
use daftari::wire::multi_batch::encode;
use daftari::wire::types::transfer_flags;
use daftari::wire::{Account, Operation, Transfer};
use zerocopy::IntoBytes;

const ACCOUNTS: u64 = 10_000;
const BATCH: u64 = 8189;

/// splitmix64: numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// Nanoseconds that this thread has run.
fn processor_time() -> u64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let time = statistics.split(' ').next().expect("it has three fields");
    time.parse().expect("it is a number")
}

fn filled() -> LedgerInMemory {
    let mut ledger = LedgerInMemory::new(LedgerOptions {
        memory_limit: u64::MAX,
        account_cache_size: 64 << 20,
    });
    let ids: Vec<u64> = (1..=ACCOUNTS).collect();
    for (batch, ids) in (1..).zip(ids.chunks(8000)) {
        let accounts: Vec<Account> = ids
            .iter()
            .map(|id| Account {
                id: u128::from(*id).into(),
                ledger: 1.into(),
                code: 1.into(),
                ..Account::zeroed()
            })
            .collect();
        let body = encode(128, &[accounts.as_bytes()]);
        ledger.execute(
            Operation::CreateAccounts,
            batch * BATCH,
            &body,
            &mut Vec::new(),
        );
    }
    ledger
}

fn batch(random: &mut Random, kind: &str, first: u64) -> Vec<u8> {
    let transfers: Vec<Transfer> = (first..first + BATCH)
        .map(|id| {
            let debit = random.next() % ACCOUNTS;
            let credit = (debit + 1 + random.next() % (ACCOUNTS - 1)) % ACCOUNTS;
            let id = match kind {
                "random" => u128::from(random.next()) << 64 | u128::from(random.next()),
                _ => u128::from(id),
            };
            let pending = kind == "pending";
            Transfer {
                id: id.into(),
                debit_account_id: u128::from(debit + 1).into(),
                credit_account_id: u128::from(credit + 1).into(),
                amount: 10.into(),
                ledger: 1.into(),
                code: 1.into(),
                timeout: u32::from(pending).into(),
                flags: (u16::from(pending) * transfer_flags::PENDING).into(),
                ..Transfer::zeroed()
            }
        })
        .collect();
    encode(128, &[transfers.as_bytes()])
}

fn run(kind: &str, millions: u64) {
    let mut ledger = filled();
    let mut random = Random(1);
    let mut reply = Vec::with_capacity(1 << 20);
    let mut next = 1;
    for million in 1..=millions {
        let mut times = Vec::new();
        while next < million * 1_000_000 {
            let body = batch(&mut random, kind, next);
            next += BATCH;
            reply.clear();
            let timestamp = (next + 10 * BATCH) * 2;
            let start = processor_time();
            ledger.execute(Operation::CreateTransfers, timestamp, &body, &mut reply);
            times.push(processor_time() - start);
        }
        times.sort_unstable();
        let total: u64 = times.iter().sum();
        let count = u64::try_from(times.len()).expect("usize fits") * BATCH;
        println!(
            "{kind} {million:3} M: {} ns a transfer; batch p50 {} us, max {} us; {} bytes a transfer",
            total / count,
            times[times.len() / 2] / 1000,
            times[times.len() - 1] / 1000,
            ledger.ledger.memory_used() / next
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let millions = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(2);
    let kind = arguments.get(1).map(String::as_str);
    for each in ["sequential", "random", "pending"] {
        if kind.is_none_or(|kind| kind == each) {
            run(each, millions);
        }
    }
}
