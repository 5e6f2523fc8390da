//! The rules of the ledger as text tables: one line per event, with what becomes of it.
//!
//! A table is read from top to bottom; `#` begins a comment. Events:
//!
//! | row | meaning |
//! | --- | --- |
//! | `account A1 code=7 -> created` | one event of a request, and its status |
//! | `transfer T1 A1->A2 amount=10 -> created` | likewise |
//! | `post T2 T1 amount=max -> created` | posts T1; `void T2 T1` voids it |
//! | `repeat 3 transfer T1 A1->A2 -> created` | so many events whose ids count up |
//! | `batch` | what follows is the next batch of the same request |
//! | `commit` | ends the request, as do rows that are no event of its kind |
//!
//! Ledger and code of an event are 1 and all other fields 0, unless the row says otherwise. Results
//! carry the timestamp of the event, or that of an import that was created; `@` and a timestamp
//! after the status says otherwise.
//!
//! | row | meaning |
//! | --- | --- |
//! | `test WORDS` | an empty ledger, and the time is 1 again |
//! | `at 5s` | the timestamp of the next event; each event takes one |
//! | `pulse 5s -> @5s:expired:T1` | what has expired by then expires |
//! | `next_pulse -> never` | when the next pulse is due |
//! | `balance A1 dpo=10` | dp, dpo, cp and cpo; those left out are 0 |
//! | `show transfer T1 amount=10` | some fields; also of an `account A1`, an `event TIME` |
//! | `lookup_accounts A1 A9 -> A1` | also `lookup_transfers` |
//! | `account_transfers A1 limit=1 -> T1` | also `query_accounts`, `query_transfers` |
//! | `account_balances A1 -> @3:0/10/0/0` | time, then dp, dpo, cp and cpo |
//! | `change_events -> @3:posted:T1` | time, kind, transfer |
//! | `count QUERY -> 3` | the number of results |
//!
//! A query has a limit of 100 and asks for both sides, unless the row says otherwise.

mod found;
mod parse;
mod record;
mod run;

use daftari::wire::{CreateAccountStatus, CreateTransferStatus, Operation};
use record::{ACCOUNT_FLAGS, TRANSFER_FLAGS};
use run::{Covered, run};

macro_rules! tables {
    ($($name:ident,)*) => {
        const TABLES: &[(&str, &str)] = &[$((
            concat!(stringify!($name), ".txt"),
            include_str!(concat!(stringify!($name), ".txt")),
        ),)*];

        $(#[test]
        fn $name() {
            let file = concat!(stringify!($name), ".txt");
            let _ = run(file, include_str!(concat!(stringify!($name), ".txt")));
        })*
    };
}

tables! {
    accounts,
    balancing,
    burnt_ids,
    chains,
    change_events,
    closing,
    exists,
    expiry,
    imported,
    limits,
    overflow,
    queries,
    transfers,
    two_phase,
}

#[test]
fn every_status_and_flag_is_in_a_table() {
    let covered: Covered = TABLES
        .iter()
        .flat_map(|(file, text)| run(file, text))
        .collect();
    let accounts = CreateAccountStatus::ALL.iter().map(|status| status.name());
    let transfers = CreateTransferStatus::ALL.iter().map(|status| status.name());
    let accounts = accounts.chain(ACCOUNT_FLAGS.iter().copied());
    let transfers = transfers.chain(TRANSFER_FLAGS.iter().copied());
    let accounts = accounts.map(|name| format!("{} {name}", Operation::CreateAccounts.name()));
    let transfers = transfers.map(|name| format!("{} {name}", Operation::CreateTransfers.name()));
    let all: Covered = accounts.chain(transfers).collect();
    // All can be reached, even `overflows_timeout`: a table may set the time to the year 2262.
    let missing: Vec<_> = all.difference(&covered).collect();
    assert!(missing.is_empty(), "no table has {missing:?}");
}

/// A client compares numbers, so these never change.
#[test]
fn statuses_have_the_numbers_of_the_protocol() {
    let accounts = CreateAccountStatus::ALL
        .iter()
        .map(|status| format!("create_accounts {} {}", status.name(), status.code()));
    let transfers = CreateTransferStatus::ALL
        .iter()
        .map(|status| format!("create_transfers {} {}", status.name(), status.code()));
    let found: Covered = accounts.chain(transfers).collect();
    let expected = include_str!("statuses.txt").lines();
    let expected: Covered = expected
        .filter(|line| !line.starts_with('#'))
        .map(String::from)
        .collect();
    assert_eq!(found, expected);
}
