//! Queries after the load: the history of accounts, each of which is asked for once in a series.
#![expect(clippy::disallowed_types, reason = "latencies are what is measured")]

use super::connection::Connection;
use super::generator::{Generator, Random};
use super::load::Measured;
use super::progress::Progress;
use crate::cli::exit::{Status, failure};
use crate::constants::BATCH_EVENTS_MAX;
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::types::account_filter_flags;
use crate::wire::{AccountFilter, Batches, Operation};
use std::collections::BTreeSet;
use std::time::Instant;
use zerocopy::IntoBytes;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topic {
    /// The transfers of an account.
    Transfers,
    /// Its balances after each of them.
    Balances,
}

impl Topic {
    /// How it is called in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfers => "account history",
            Self::Balances => "account balances",
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Transfers => Operation::GetAccountTransfers,
            Self::Balances => Operation::GetAccountBalances,
        }
    }
}

/// Indexes of different accounts chosen at random: `count` of them, or all in case of fewer.
pub fn choose_accounts(generator: &Generator, count: u64) -> Vec<u64> {
    let all = generator.workload().account_count;
    let count = count.min(all);
    let mut random = Random::new(generator.workload().seed, u64::MAX - 1);
    let mut chosen = BTreeSet::new();
    let mut order = Vec::with_capacity(u64_to_usize(count));
    // Floyd's: each step admits one more account, and takes it when its draw is taken already.
    for last in all - count..all {
        let drawn = random.below(last + 1);
        let index = if chosen.insert(drawn) { drawn } else { last };
        let _new = chosen.insert(index);
        order.push(index);
    }
    assert_eq!(to_u64(chosen.len()), count, "accounts differ");
    order
}

/// Asks for the history of each of the accounts, one after the other.
pub fn run(
    topic: Topic,
    accounts: &[u64],
    generator: &Generator,
    connection: &mut Connection,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::new();
    let mut progress = Progress::new("queries", to_u64(accounts.len()));
    let operation = topic.operation();
    let result_size = operation.result_size();
    let begin = Instant::now();
    for account in accounts {
        let mut filter = AccountFilter::zeroed();
        filter.account_id = generator.id(*account).into();
        filter.limit = BATCH_EVENTS_MAX.into();
        filter.flags = (account_filter_flags::DEBITS | account_filter_flags::CREDITS).into();
        let sent = Instant::now();
        let reply = connection.call(operation, filter.as_bytes())?;
        measured.record(sent.elapsed());
        let found = Batches::decode(result_size, &reply.body)
            .map_err(|error| failure(Status::Server, format!("the results of a query: {error}")))?;
        measured.objects += to_u64(found.payload().len() / result_size);
        progress.advance(measured.requests);
    }
    measured.elapsed = begin.elapsed();
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::choose_accounts;
    use crate::cli::benchmark::generator::{Generator, tests::workload};
    use crate::cli::benchmark::options::IdOrder;
    use std::collections::BTreeSet;

    #[test]
    fn accounts_of_a_series_differ_and_are_the_same_again() {
        let generator = Generator::new(workload(IdOrder::Sequential));
        for (wanted, expected) in [(0, 0), (10, 10), (99, 99), (100, 100), (1000, 100)] {
            let chosen = choose_accounts(&generator, wanted);
            let different: BTreeSet<u64> = chosen.iter().copied().collect();
            assert_eq!((chosen.len(), different.len()), (expected, expected));
            assert!(chosen.iter().all(|index| *index < 100));
            assert_eq!(chosen, choose_accounts(&generator, wanted));
        }
    }
}
