//! Reads everything back, and compares it with what was sent.

use super::connection::Connection;
use super::generator::Generator;
use super::progress::Progress;
use crate::cli::exit::{Status, failure};
use crate::constants::BATCH_EVENTS_MAX;
use crate::wire::{Account, Batches, Operation, Transfer};
use std::collections::BTreeMap;
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What was compared.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    pub accounts: u64,
    pub transfers: u64,
}

/// Debits and credits of an account, as far as they are known to come from this run.
#[derive(Clone, Copy, Debug, Default)]
struct Turnover {
    debits: u128,
    credits: u128,
}

/// Compares all transfers, then the balances of all accounts.
///
/// # Errors
/// Names the first object that differs.
pub fn compare(generator: &Generator, connection: &mut Connection) -> anyhow::Result<Compared> {
    let mut turnover: BTreeMap<u128, Turnover> = BTreeMap::new();
    let mut progress = Progress::new("batches compared", generator.batch_count());
    for batch in 0..generator.batch_count() {
        let expected = generator.transfers(batch);
        compare_transfers(&expected, connection)?;
        if generator.workload().two_phase_distance.is_some() {
            compare_transfers(&generator.postings(batch), connection)?;
        }
        for transfer in &expected {
            let amount = transfer.amount.get();
            turnover
                .entry(transfer.debit_account_id.get())
                .or_default()
                .debits += amount;
            turnover
                .entry(transfer.credit_account_id.get())
                .or_default()
                .credits += amount;
        }
        progress.advance(batch + 1);
    }
    compare_accounts(generator, connection, &turnover)?;
    let workload = generator.workload();
    Ok(Compared {
        accounts: workload.account_count,
        transfers: generator.created_count(),
    })
}

fn compare_transfers(expected: &[Transfer], connection: &mut Connection) -> anyhow::Result<()> {
    let ids: Vec<U128> = expected.iter().map(|transfer| transfer.id).collect();
    let found: Vec<Transfer> = lookup(connection, Operation::LookupTransfers, &ids)?;
    if found.len() != expected.len() {
        let missing = expected.len() - found.len().min(expected.len());
        return differs(&format!("{missing} transfers of a batch are missing"));
    }
    for (expected, found) in expected.iter().zip(&found) {
        if *expected
            != (Transfer {
                timestamp: expected.timestamp,
                ..*found
            })
        {
            return differs(&format!("transfer {} reads {found:?}", expected.id));
        }
    }
    Ok(())
}

fn compare_accounts(
    generator: &Generator,
    connection: &mut Connection,
    turnover: &BTreeMap<u128, Turnover>,
) -> anyhow::Result<()> {
    let count = generator.workload().account_count;
    let pending = generator.workload().pending;
    let mut first = 0;
    while first < count {
        let last = count.min(first + u64::from(BATCH_EVENTS_MAX));
        let ids: Vec<U128> = (first..last)
            .map(|index| generator.id(index).into())
            .collect();
        let found: Vec<Account> = lookup(connection, Operation::LookupAccounts, &ids)?;
        if found.len() != ids.len() {
            return differs(&format!("{} accounts are missing", ids.len() - found.len()));
        }
        for account in &found {
            let expected = turnover.get(&account.id.get()).copied().unwrap_or_default();
            let matches = if pending {
                // Some of them may have expired meanwhile.
                account.debits_pending.get() <= expected.debits
                    && account.credits_pending.get() <= expected.credits
            } else {
                // Two phases leave nothing pending.
                account.debits_pending.get() == 0
                    && account.credits_pending.get() == 0
                    && account.debits_posted.get() == expected.debits
                    && account.credits_posted.get() == expected.credits
            };
            if !matches {
                return differs(&format!("account {account:?} should have {expected:?}"));
            }
        }
        first = last;
    }
    Ok(())
}

fn lookup<T: FromBytes + Immutable + KnownLayout + Unaligned + Clone>(
    connection: &mut Connection,
    operation: Operation,
    ids: &[U128],
) -> anyhow::Result<Vec<T>> {
    let reply = connection.call(operation, ids.as_bytes())?;
    let batches = Batches::decode(operation.result_size(), &reply.body)
        .map_err(|error| failure(Status::Server, format!("the results of a lookup: {error}")))?;
    match <[T]>::ref_from_bytes(batches.payload()) {
        Ok(found) => Ok(found.to_vec()),
        Err(_) => Err(failure(
            Status::Server,
            "the results of a lookup are cut off",
        )),
    }
}

fn differs<T>(what: &str) -> anyhow::Result<T> {
    Err(failure(
        Status::Negative,
        format!("validation failed: {what}"),
    ))
}
