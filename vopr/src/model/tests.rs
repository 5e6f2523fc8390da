//! What the recorded traces do not reach: old operations byte for byte, pulses, restored chains,
//! and times that a recording cannot have.

use super::batch::{decode, encode};
use super::flags::{account as account_flag, transfer as flag};
use super::layout::{
    Account, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult, Layout, QueryFilter,
    SparseResult, Transfer,
};
use super::status::{account as account_status, transfer as status};
use super::{Model, NANOSECONDS};

const START: u64 = 1_000 * NANOSECONDS;

fn account(id: u128) -> Account {
    Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::zeroed()
    }
}

fn transfer(id: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        ledger: 1,
        code: 1,
        ..Transfer::zeroed()
    }
}

fn pending(id: u128, amount: u128, timeout: u32) -> Transfer {
    Transfer {
        flags: flag::PENDING,
        timeout,
        ..transfer(id, amount)
    }
}

fn bytes<T: Layout>(events: &[T]) -> Vec<u8> {
    events.iter().flat_map(Layout::bytes).collect()
}

/// Creates one batch, and gives statuses and timestamps.
fn create<T: Layout>(model: &mut Model, timestamp: u64, events: &[T]) -> Vec<(u32, u64)> {
    let operation = if T::FIELDS[1].0 == "debits_pending" {
        146
    } else {
        147
    };
    let reply = model.execute(operation, timestamp, &encode(128, &[bytes(events)]));
    model.check_conservation().expect("money is conserved");
    let batches = decode(16, &reply).expect("valid");
    let results = batches[0].chunks(16).map(CreateResult::decode);
    results
        .map(|result| (result.status, result.timestamp))
        .collect()
}

fn statuses<T: Layout>(model: &mut Model, timestamp: u64, events: &[T]) -> Vec<u32> {
    create(model, timestamp, events)
        .into_iter()
        .map(|(status, _)| status)
        .collect()
}

/// Accounts 1 and 2.
fn two_accounts() -> Model {
    let mut model = Model::new();
    let created = account_status::CREATED;
    assert_eq!(
        statuses(&mut model, START, &[account(1), account(2)]),
        [created; 2]
    );
    model
}

fn balances(model: &Model, id: u128) -> (u128, u128, u128, u128) {
    let a = model
        .accounts()
        .find(|account| account.id == id)
        .expect("it exists");
    (
        a.debits_pending,
        a.debits_posted,
        a.credits_pending,
        a.credits_posted,
    )
}

fn events(model: &mut Model, timestamp: u64) -> Vec<ChangeEvent> {
    let filter = ChangeEventsFilter {
        limit: u32::MAX,
        ..ChangeEventsFilter::zeroed()
    };
    let reply = model.execute(137, timestamp, &filter.bytes());
    reply
        .chunks(ChangeEvent::SIZE)
        .map(ChangeEvent::decode)
        .collect()
}

#[test]
fn old_creates_answer_with_failures_only() {
    let mut model = Model::new();
    // As in the captured session: three accounts, two failures, an empty batch.
    let batches = [
        bytes(&[account(1), account(2), account(3)]),
        bytes(&[account(0), account(1)]),
        vec![],
    ];
    let reply = model.execute(138, START, &encode(128, &batches));
    let failures = [
        SparseResult {
            index: 0,
            status: account_status::ID_MUST_NOT_BE_ZERO,
        },
        SparseResult {
            index: 1,
            status: account_status::EXISTS,
        },
    ];
    assert_eq!(reply, encode(8, &[vec![], bytes(&failures), vec![]]));
    let linked = Transfer {
        flags: flag::LINKED,
        ..transfer(2, 1)
    };
    let refused = Transfer {
        credit_account_id: 1,
        flags: flag::LINKED,
        ..transfer(3, 1)
    };
    let chain = [transfer(1, 1), linked, refused, transfer(4, 1)];
    let failed = |index, status| SparseResult { index, status };
    let failures = [
        failed(1, status::LINKED_EVENT_FAILED),
        failed(2, status::ACCOUNTS_MUST_BE_DIFFERENT),
        failed(3, status::LINKED_EVENT_FAILED),
    ];
    assert_eq!(
        model.execute(130, START + 9, &bytes(&chain)),
        bytes(&failures)
    );
    assert!(
        model
            .execute(129, START + 99, &bytes(&[account(9)]))
            .is_empty()
    );
    assert!(model.execute(129, START + 999, &[]).is_empty());
    assert_eq!(balances(&model, 1), (0, 1, 0, 0));
}

#[test]
fn old_reads_have_no_trailer() {
    let mut model = two_accounts();
    create(&mut model, START + 10, &[transfer(7, 5)]);
    let ids = |all: &[u128]| {
        all.iter()
            .flat_map(|id| id.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let accounts: Vec<Account> = model.accounts().copied().collect();
    let stored = [Transfer {
        timestamp: START + 10,
        ..transfer(7, 5)
    }];
    assert_eq!(
        model.execute(131, START + 11, &ids(&[1, 3, 2])),
        bytes(&accounts)
    );
    assert_eq!(
        model.execute(132, START + 12, &ids(&[7, 7]))[128..],
        bytes(&stored)
    );
    let by_account = AccountFilter {
        account_id: 2,
        limit: 9,
        flags: 3,
        ..AccountFilter::zeroed()
    };
    assert_eq!(
        model.execute(133, START + 13, &by_account.bytes()),
        bytes(&stored)
    );
    assert!(
        model
            .execute(134, START + 14, &by_account.bytes())
            .is_empty()
    );
    let all = QueryFilter {
        limit: 9,
        flags: 1,
        ..QueryFilter::zeroed()
    };
    assert_eq!(
        model.execute(135, START + 15, &all.bytes())[..128],
        accounts[1].bytes()
    );
    assert_eq!(model.execute(136, START + 16, &all.bytes()), bytes(&stored));
}

#[test]
fn an_expiry_races_the_resolution() {
    for (late, expected) in [(0, status::CREATED), (1, status::PENDING_TRANSFER_EXPIRED)] {
        let mut model = two_accounts();
        let created = create(&mut model, START + 10, &[pending(5, 3, 1)]);
        let expires_at = created[0].1 + NANOSECONDS;
        assert!(!model.pulse_due(expires_at - 1) && model.pulse_due(expires_at));
        // No pulse has come yet: the time alone decides.
        let void = Transfer {
            id: 6,
            pending_id: 5,
            flags: flag::VOID,
            ..Transfer::zeroed()
        };
        let at = expires_at - 1 + late;
        assert_eq!(statuses(&mut model, at, &[void]), [expected]);
        assert_eq!(model.pulse_due(expires_at), late == 1);
        model.pulse(expires_at + 10_000);
        assert_eq!(balances(&model, 1), (0, 0, 0, 0));
        let kinds: Vec<u8> = events(&mut model, expires_at + 20_000)
            .iter()
            .map(|e| e.kind)
            .collect();
        assert_eq!(kinds, if late == 1 { [1, 4] } else { [1, 3] });
    }
}

#[test]
fn a_pulse_expires_so_many_in_order() {
    let mut model = two_accounts();
    // The second to be created is the first to expire.
    let late = create(&mut model, START + 10, &[pending(5, 1, 9)])[0].1;
    let mut timestamp = START + 10;
    for request in 0..2 {
        let first = 1_000 + 4_096 * request;
        let batch: Vec<Transfer> = (first..first + 4_096).map(|id| pending(id, 1, 2)).collect();
        timestamp += 5_000;
        assert!(
            create(&mut model, timestamp, &batch)
                .iter()
                .all(|r| r.0 == status::CREATED)
        );
    }
    let now = late + 9 * NANOSECONDS;
    model.pulse(now + 8_190);
    assert!(model.pulse_due(now));
    assert_eq!(balances(&model, 1), (3, 0, 0, 0));
    model.pulse(now + 2 * 8_190);
    assert!(!model.pulse_due(u64::MAX));
    assert_eq!(balances(&model, 1), (0, 0, 0, 0));
    let last = model.events.last_key_value().expect("expiries").1;
    assert_eq!((last.transfer_id, last.timestamp), (5, now + 2 * 8_190));
    assert_eq!(
        model
            .events
            .range((now, false)..)
            .next()
            .expect("expiries")
            .1
            .timestamp,
        now + 1
    );
    model.check_conservation().expect("money is conserved");
}

#[test]
fn a_broken_chain_restores_what_it_resolved() {
    let mut model = two_accounts();
    create(&mut model, START + 10, &[pending(5, 3, 7)]);
    let before = model.digest();
    let post = Transfer {
        id: 6,
        pending_id: 5,
        amount: u128::MAX,
        flags: flag::POST | flag::LINKED,
        ..Transfer::zeroed()
    };
    let missing = Transfer {
        debit_account_id: 99,
        ..transfer(7, 1)
    };
    let chain = create(&mut model, START + 20, &[post, missing]);
    assert_eq!(
        chain,
        [
            (status::LINKED_EVENT_FAILED, START + 19),
            (status::DEBIT_ACCOUNT_NOT_FOUND, START + 20)
        ]
    );
    assert_eq!(model.digest(), before);
    // The timeout is back, the id of the post is free, that of the failure is burnt.
    let due = START + 10 + 7 * NANOSECONDS;
    assert!(model.pulse_due(due) && !model.pulse_due(due - 1));
    let post = Transfer {
        flags: flag::POST,
        ..post
    };
    let again = [
        post,
        Transfer {
            debit_account_id: 1,
            ..missing
        },
    ];
    let expected = [status::CREATED, status::ID_ALREADY_FAILED];
    assert_eq!(statuses(&mut model, START + 30, &again), expected);
    assert!(!model.pulse_due(u64::MAX));
    assert_ne!(model.digest(), before);
}

#[test]
fn a_discarded_import_leaves_no_time_behind() {
    let mut model = two_accounts();
    let import = |id, timestamp, flags| Transfer {
        timestamp,
        flags: flag::IMPORTED | flags,
        ..transfer(id, 1)
    };
    let at = START + 100;
    let chain = [import(5, at, flag::LINKED), import(6, at, 0)];
    assert_eq!(
        create(&mut model, START + 1_000, &chain),
        [
            (status::LINKED_EVENT_FAILED, at),
            (
                status::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS,
                START + 1_000
            )
        ]
    );
    assert_eq!(
        create(&mut model, START + 2_000, &[import(7, at, 0)]),
        [(status::CREATED, at)]
    );
    // The times of accounts are taken, too.
    let accounts = [Account {
        timestamp: at,
        flags: account_flag::IMPORTED,
        ..account(9)
    }];
    let regress = account_status::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS;
    assert_eq!(statuses(&mut model, START + 3_000, &accounts), [regress]);
}

#[test]
fn an_import_may_have_the_time_of_an_expiry() {
    let mut model = two_accounts();
    let history = Account {
        flags: account_flag::HISTORY,
        ..account(3)
    };
    create(&mut model, START + 5, &[history]);
    create(&mut model, START + 10, &[pending(5, 3, 1)]);
    let expired = START + 10 + NANOSECONDS + 10;
    model.pulse(expired);
    let import = Transfer {
        timestamp: expired,
        flags: flag::IMPORTED,
        credit_account_id: 3,
        ..transfer(6, 4)
    };
    assert_eq!(
        create(&mut model, expired + 50, &[import]),
        [(status::CREATED, expired)]
    );
    let kinds: Vec<(u64, u8)> = events(&mut model, expired + 60)
        .iter()
        .map(|e| (e.timestamp, e.kind))
        .collect();
    assert_eq!(kinds, [(START + 10, 1), (expired, 0), (expired, 4)]);
    let filter = AccountFilter {
        account_id: 3,
        limit: 9,
        flags: 2,
        ..AccountFilter::zeroed()
    };
    let reply = model.execute(134, expired + 70, &filter.bytes());
    assert_eq!(reply.len(), 128);
    assert_eq!(reply[48..64], 4_u128.to_le_bytes());
}

#[test]
fn timeouts_end_before_the_end_of_time() {
    let mut model = two_accounts();
    let room = u64::from(u32::MAX) * NANOSECONDS;
    let limit = (1 << 63) - 1 - room;
    let long = [
        pending(5, 1, u32::MAX),
        pending(6, 1, u32::MAX),
        pending(7, 1, u32::MAX - 1),
    ];
    let expected = [status::CREATED, status::OVERFLOWS_TIMEOUT, status::CREATED];
    assert_eq!(statuses(&mut model, limit + 2, &long), expected);
    // It burns no id.
    assert_eq!(
        statuses(&mut model, limit + 3, &[transfer(6, 1)]),
        [status::CREATED]
    );
}

#[test]
fn batches_have_chains_imports_and_times_of_their_own() {
    let mut model = two_accounts();
    let open = Transfer {
        flags: flag::LINKED,
        ..transfer(5, 1)
    };
    let import = |id, timestamp| Transfer {
        timestamp,
        flags: flag::IMPORTED,
        ..transfer(id, 1)
    };
    let batches = [
        bytes(&[open]),
        vec![],
        // The last time of its own batch is what an import must not reach.
        bytes(&[import(6, START + 98), import(7, START + 99)]),
        bytes(&[transfer(8, 1)]),
    ];
    let reply = model.execute(147, START + 100, &encode(128, &batches));
    let result = |status, timestamp| CreateResult {
        timestamp,
        status,
        reserved: 0,
    };
    let expected = [
        bytes(&[result(status::LINKED_EVENT_CHAIN_OPEN, START + 97)]),
        vec![],
        bytes(&[
            result(status::CREATED, START + 98),
            result(
                status::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE,
                START + 99,
            ),
        ]),
        bytes(&[result(status::CREATED, START + 100)]),
    ];
    assert_eq!(reply, encode(16, &expected));
}

#[test]
fn the_audit_notices_lost_money() {
    let spoilt = |spoil: fn(&mut Model)| {
        let mut model = two_accounts();
        create(&mut model, START + 10, &[transfer(5, 3), pending(6, 4, 9)]);
        let digest = model.digest();
        spoil(&mut model);
        (
            model.check_conservation().is_err(),
            model.digest() != digest,
        )
    };
    let first = |model: &mut Model| {
        model
            .accounts
            .values_mut()
            .next()
            .map(|a| a.debits_posted += 1)
    };
    assert_eq!(spoilt(|_| ()), (false, false));
    assert_eq!(
        spoilt(|model| assert!(model.expiry.pop_first().is_some())),
        (true, false)
    );
    assert_eq!(
        spoilt(|model| model
            .accounts
            .values_mut()
            .for_each(|a| a.debits_pending = 0)),
        (true, true)
    );
    let mut model = two_accounts();
    assert!(first(&mut model).is_some());
    assert!(model.check_conservation().is_err());
}

#[test]
#[should_panic(expected = "timestamps increase")]
fn time_never_stands_still() {
    let mut model = two_accounts();
    let filter = ChangeEventsFilter::zeroed();
    drop(model.execute(137, START, &filter.bytes()));
}

#[test]
#[should_panic(expected = "given out twice")]
fn no_time_is_given_out_twice() {
    let mut model = two_accounts();
    create(&mut model, START + 1, &[transfer(5, 1), transfer(6, 1)]);
}
