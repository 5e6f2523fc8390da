//! Balances of more than 64 bits, chains that are taken back, and what a restart makes of it all.

use super::records::PendingStatus;
use super::{LedgerInMemory, LedgerOptions};
use crate::wire::multi_batch::{Batches, encode};
use crate::wire::types::{account_filter_flags, account_flags, transfer_flags as flags};
use crate::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    CreateTransferStatus as Status, Operation, Transfer,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const NARROW_MAX: u128 = (1 << 64) - 1;

fn empty() -> LedgerInMemory {
    LedgerInMemory::new(LedgerOptions {
        memory_limit: 1 << 30,
        account_cache_size: 0,
    })
}

/// Two accounts with history, at 1 and 2.
fn with_accounts() -> LedgerInMemory {
    let mut ledger = empty();
    let accounts = [1_u128, 2].map(|id| Account {
        id: id.into(),
        ledger: 1.into(),
        code: 1.into(),
        flags: account_flags::HISTORY.into(),
        ..Account::new_zeroed()
    });
    let body = encode(128, &[accounts.as_bytes()]);
    ledger.execute(Operation::CreateAccounts, 2, &body, &mut Vec::new());
    ledger
}

fn transfer(id: u128, amount: u128, flags: u16) -> Transfer {
    Transfer {
        id: id.into(),
        debit_account_id: 1.into(),
        credit_account_id: 2.into(),
        amount: amount.into(),
        ledger: 1.into(),
        code: 1.into(),
        flags: flags.into(),
        ..Transfer::new_zeroed()
    }
}

fn expiring(id: u128, amount: u128, timeout: u32) -> Transfer {
    Transfer {
        timeout: timeout.into(),
        ..transfer(id, amount, flags::PENDING)
    }
}

fn resolving(id: u128, pending_id: u128, amount: u128, flags: u16) -> Transfer {
    Transfer {
        pending_id: pending_id.into(),
        ..transfer(id, amount, flags)
    }
}

/// The last of them has that timestamp.
fn create(ledger: &mut LedgerInMemory, timestamp: u64, transfers: &[Transfer]) -> Vec<u32> {
    let body = encode(128, &[transfers.as_bytes()]);
    let mut reply = Vec::new();
    ledger.execute(Operation::CreateTransfers, timestamp, &body, &mut reply);
    let batches = Batches::decode(size_of::<CreateResult>(), &reply).unwrap();
    let results = <[CreateResult]>::ref_from_bytes(batches.payload()).unwrap();
    results.iter().map(|result| result.status.get()).collect()
}

fn codes<const N: usize>(statuses: [Status; N]) -> Vec<u32> {
    statuses.map(Status::code).to_vec()
}

/// By time, what account 1 had: debits pending and posted.
fn history(ledger: &mut LedgerInMemory) -> Vec<(u64, u128, u128)> {
    let filter = AccountFilter {
        account_id: 1.into(),
        limit: 100.into(),
        flags: account_filter_flags::DEBITS.into(),
        ..AccountFilter::new_zeroed()
    };
    let body = encode(128, &[filter.as_bytes()]);
    let mut reply = Vec::new();
    ledger.execute(Operation::GetAccountBalances, 900, &body, &mut reply);
    let batches = Batches::decode(size_of::<AccountBalance>(), &reply).unwrap();
    let balances = <[AccountBalance]>::ref_from_bytes(batches.payload()).unwrap();
    let row = |balance: &AccountBalance| {
        assert_eq!(balance.credits_pending.get(), 0);
        let (pending, posted) = (balance.debits_pending, balance.debits_posted);
        (balance.timestamp.get(), pending.get(), posted.get())
    };
    balances.iter().map(row).collect()
}

/// The same by change events: of both accounts, as one account's debits are the other's credits.
fn changes(ledger: &mut LedgerInMemory) -> Vec<(u64, u128, u128)> {
    let filter = ChangeEventsFilter {
        limit: 100.into(),
        ..ChangeEventsFilter::new_zeroed()
    };
    let mut reply = Vec::new();
    let operation = Operation::GetChangeEvents;
    ledger.execute(operation, 900, filter.as_bytes(), &mut reply);
    let events = <[ChangeEvent]>::ref_from_bytes(&reply).unwrap();
    let row = |event: &ChangeEvent| {
        let pending = event.debit_account_debits_pending;
        let posted = event.debit_account_debits_posted;
        assert_eq!(event.credit_account_credits_pending, pending);
        assert_eq!(event.credit_account_credits_posted, posted);
        assert_eq!(event.debit_account_credits_posted.get(), 0);
        assert_eq!(event.credit_account_debits_pending.get(), 0);
        (event.timestamp.get(), pending.get(), posted.get())
    };
    events.iter().map(row).collect()
}

#[test]
fn a_balance_crosses_64_bits_upwards_and_downwards() {
    let mut ledger = with_accounts();
    let pending = flags::PENDING;
    let transfers = [
        transfer(1, NARROW_MAX, pending),
        transfer(2, 1, pending),
        resolving(3, 2, 0, flags::VOID_PENDING_TRANSFER),
        transfer(4, NARROW_MAX, 0),
        transfer(5, 1 << 100, pending),
        resolving(6, 5, 1, flags::POST_PENDING_TRANSFER),
    ];
    let created = create(&mut ledger, 8, &transfers);
    assert_eq!(created, codes([Status::Created; 6]));
    let expected = [
        (3, NARROW_MAX, 0),
        (4, 1 << 64, 0),
        (5, NARROW_MAX, 0),
        (6, NARROW_MAX, NARROW_MAX),
        (7, NARROW_MAX + (1 << 100), NARROW_MAX),
        (8, NARROW_MAX, 1 << 64),
    ];
    for restart in [false, true] {
        if restart {
            ledger.restart();
        }
        assert_eq!(
            (ledger.ledger.wide.len(), ledger.ledger.events.len()),
            (3, 6)
        );
        assert_eq!(history(&mut ledger), expected);
        assert_eq!(changes(&mut ledger), expected);
    }
}

#[test]
fn an_expiry_brings_a_balance_below_64_bits() {
    let mut ledger = with_accounts();
    let transfers = [transfer(1, 5, flags::PENDING), expiring(2, NARROW_MAX, 1)];
    let created = create(&mut ledger, 4, &transfers);
    assert_eq!(created, codes([Status::Created; 2]));
    let due = ledger.ledger.pulse_next();
    ledger.pulse(due);
    assert_eq!(
        create(&mut ledger, due + 1, &[transfer(3, 1, 0)]),
        [Status::Created.code()]
    );
    let expected = [
        (3, 5, 0),
        (4, NARROW_MAX + 5, 0),
        (due, 5, 0),
        (due + 1, 5, 1),
    ];
    for restart in [false, true] {
        if restart {
            ledger.restart();
        }
        assert_eq!(
            (ledger.ledger.wide.len(), ledger.ledger.expiries.len()),
            (1, 1)
        );
        assert_eq!(changes(&mut ledger), expected);
        let history = history(&mut ledger);
        assert_eq!(history, [expected[0], expected[1], expected[3]]);
    }
}

#[test]
fn a_chain_with_a_wide_event_is_taken_back() {
    let mut ledger = with_accounts();
    let first = [
        transfer(1, 1 << 64, flags::PENDING),
        expiring(2, 1, 10),
        transfer(3, 7, 0),
    ];
    assert_eq!(create(&mut ledger, 5, &first), codes([Status::Created; 3]));
    let (state, due) = (ledger.ledger.state(), ledger.ledger.due.clone());
    let mut ids = 10..;
    let mut broken = |timestamp, ledger: &mut LedgerInMemory| {
        let linked = flags::LINKED;
        let [a, b, c, d, e] = std::array::from_fn(|_| ids.next().unwrap());
        let chain = [
            transfer(a, 1 << 80, linked),
            Transfer {
                timeout: 1.into(),
                ..transfer(b, 1 << 90, flags::PENDING | linked)
            },
            resolving(c, b, u128::MAX, flags::POST_PENDING_TRANSFER | linked),
            resolving(d, 2, 0, flags::VOID_PENDING_TRANSFER | linked),
            transfer(e, 0, flags::DEFINED + 1),
        ];
        let failed = Status::LinkedEventFailed;
        let statuses = [failed, failed, failed, failed, Status::ReservedFlag];
        assert_eq!(create(ledger, timestamp, &chain), codes(statuses));
    };
    broken(10, &mut ledger);
    assert_eq!((ledger.ledger.state(), &ledger.ledger.due), (state, &due));
    ledger.restart();
    broken(20, &mut ledger);
    assert_eq!((ledger.ledger.state(), &ledger.ledger.due), (state, &due));
    let created = create(&mut ledger, 21, &[transfer(30, 1, 0)]);
    assert_eq!(created, codes([Status::Created]));
    let expected = [
        (3, 1 << 64, 0),
        (4, (1 << 64) + 1, 0),
        (5, (1 << 64) + 1, 7),
        (21, (1 << 64) + 1, 8),
    ];
    for restart in [false, true] {
        if restart {
            ledger.restart();
        }
        assert_eq!(ledger.ledger.wide.len(), 4);
        assert_eq!(changes(&mut ledger), expected);
    }
}

#[test]
fn statuses_are_the_same_after_a_restart() {
    let mut ledger = with_accounts();
    let pending: Vec<Transfer> = (1..=9).map(|id| expiring(id, 10, 5)).collect();
    assert_eq!(create(&mut ledger, 11, &pending).len(), 9);
    assert!(ledger.ledger.statuses.is_empty(), "nothing is resolved yet");
    let resolves = [
        resolving(20, 2, u128::MAX, flags::POST_PENDING_TRANSFER),
        resolving(21, 9, 0, flags::VOID_PENDING_TRANSFER),
        resolving(22, 5, 3, flags::POST_PENDING_TRANSFER),
    ];
    let created = create(&mut ledger, 14, &resolves);
    assert_eq!(created, codes([Status::Created; 3]));
    assert_eq!(ledger.ledger.statuses.len(), 3, "four transfers a byte");
    ledger.restart();
    // Those of 1, 3 and 4 expire; 6, 7 and 8 are a nanosecond younger each.
    ledger.pulse(5_000_000_006);
    ledger.restart();
    let (none, posted) = (PendingStatus::Pending, PendingStatus::Posted);
    let (voided, expired) = (PendingStatus::Voided, PendingStatus::Expired);
    let expected = [
        expired, posted, expired, expired, posted, none, none, none, voided, none, none, none,
    ];
    for (position, expected) in (0..).zip(expected) {
        assert_eq!(
            ledger.ledger.status(position),
            expected,
            "transfer {position}"
        );
    }
    assert_eq!(
        (ledger.ledger.due.len(), ledger.ledger.expiries.len()),
        (3, 3)
    );
    let again: Vec<Transfer> = (1..=9)
        .map(|id| resolving(30 + id, id, 0, flags::VOID_PENDING_TRANSFER))
        .collect();
    let posted = Status::PendingTransferAlreadyPosted;
    let (expired, created) = (Status::PendingTransferExpired, Status::Created);
    let voided = Status::PendingTransferAlreadyVoided;
    let statuses = [
        expired, posted, expired, expired, posted, expired, created, created, voided,
    ];
    let at = 5_000_000_006 + 9;
    let found = create(&mut ledger, at, &again);
    assert_eq!(found[..5], codes(statuses)[..5]);
    assert_eq!(found[8], voided.code());
}

/// Makes accounts of ids; the last of them has that timestamp.
fn create_accounts(ledger: &mut LedgerInMemory, timestamp: u64, ids: &[u128]) {
    let account = |id: &u128| Account {
        id: (*id).into(),
        ledger: 1.into(),
        code: 1.into(),
        ..Account::new_zeroed()
    };
    let accounts: Vec<Account> = ids.iter().map(account).collect();
    let body = encode(128, &[accounts.as_bytes()]);
    let mut reply = Vec::new();
    ledger.execute(Operation::CreateAccounts, timestamp, &body, &mut reply);
}

fn lookup(ledger: &mut LedgerInMemory, ids: &[u128]) -> Vec<Account> {
    let body = encode(16, &[ids.as_bytes()]);
    let mut reply = Vec::new();
    ledger.execute(Operation::LookupAccounts, 0, &body, &mut reply);
    let batches = Batches::decode(128, &reply).unwrap();
    <[Account]>::ref_from_bytes(batches.payload())
        .unwrap()
        .to_vec()
}

#[test]
fn accounts_come_back_from_the_disk_with_their_balances() {
    const BATCH: usize = 8189;
    const COUNT: u128 = 430_000;
    let mut ledger = empty();
    let ids: Vec<u128> = (1..=COUNT).collect();
    let mut now = 1;
    for ids in ids.chunks(BATCH) {
        now += 10_000;
        create_accounts(&mut ledger, now, ids);
    }
    assert!(ledger.ledger.indexes.account_ids.block_count() > 0);
    let mut number = 0;
    for round in 0..3_u128 {
        // Each account of a batch is in one transfer, and not in the cache.
        let transfers: Vec<Transfer> = (1..=8000)
            .map(|at| {
                number += 1;
                Transfer {
                    debit_account_id: at.into(),
                    credit_account_id: (COUNT - at).into(),
                    ..transfer(COUNT + number, at + round, 0)
                }
            })
            .collect();
        now += 10_000;
        let created = create(&mut ledger, now, &transfers);
        assert!(
            created
                .iter()
                .all(|status| *status == Status::Created.code())
        );
        if round == 1 {
            ledger.restart();
        }
    }
    let ids: Vec<u128> = (1..=4000).flat_map(|at| [at, COUNT - at]).collect();
    let found = lookup(&mut ledger, &ids);
    assert_eq!(found.len(), ids.len());
    for (pair, at) in found.chunks_exact(2).zip(1_u128..) {
        let moved = 3 * at + 3;
        assert_eq!((pair[0].id.get(), pair[1].id.get()), (at, COUNT - at));
        assert_eq!(
            (pair[0].debits_posted.get(), pair[0].credits_posted.get()),
            (moved, 0)
        );
        assert_eq!(
            (pair[1].debits_posted.get(), pair[1].credits_posted.get()),
            (0, moved)
        );
        assert_eq!((pair[0].ledger.get(), pair[0].code.get()), (1, 1));
    }
    assert_eq!(lookup(&mut ledger, &[COUNT + 1, 0, u128::MAX, 7]).len(), 1);
}

#[test]
fn accounts_of_one_hash_are_told_apart() {
    let mut ledger = empty();
    let ids: Vec<u128> = (1..=100).map(crate::lsm::hash::colliding).collect();
    // The odd ones are there.
    let (odd, even): (Vec<_>, Vec<_>) = ids.chunks_exact(2).map(|two| (two[0], two[1])).unzip();
    create_accounts(&mut ledger, 100, &odd);
    let between = |id: u128, debit: u128, credit: u128| Transfer {
        debit_account_id: debit.into(),
        credit_account_id: credit.into(),
        ..transfer(id, 5, 0)
    };
    let transfers = [
        between(1, odd[0], odd[1]),
        between(2, odd[2], even[0]),
        between(3, even[1], odd[3]),
        between(4, odd[1], odd[2]),
    ];
    let statuses = [
        Status::Created,
        Status::CreditAccountNotFound,
        Status::DebitAccountNotFound,
        Status::Created,
    ];
    assert_eq!(create(&mut ledger, 1000, &transfers), codes(statuses));
    let found = lookup(&mut ledger, &odd[..4]);
    let balances = found
        .iter()
        .map(|account| (account.debits_posted.get(), account.credits_posted.get()));
    assert_eq!(
        balances.collect::<Vec<_>>(),
        [(5, 0), (5, 5), (0, 5), (0, 0)]
    );
    assert!(lookup(&mut ledger, &even).is_empty());
}
