//! The official Rust client against a real server: what a user does on the first day.

use crate::util::{Directory, Server, block_on, format, free_port};
use std::thread;
use std::time::{Duration, Instant};
use tb::{CreateAccountStatus, CreateTransferStatus};
use tigerbeetle as tb;

const LEDGER: u32 = 700;

fn with_client(name: &str, test: impl FnOnce(&tb::Client, &Server)) {
    let directory = Directory::new(name);
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let server = Server::start(&file, free_port(), &[]);
    let client = connect(&server);
    test(&client, &server);
    block_on(client.close()).expect("it closes");
    let (status, _) = server.terminate();
    assert!(status.success());
}

fn connect(server: &Server) -> tb::Client {
    tb::Client::new(0, &server.address()).expect("the address is right")
}

fn account(id: u128) -> tb::Account {
    tb::Account {
        id,
        ledger: LEDGER,
        code: 10,
        ..Default::default()
    }
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128) -> tb::Transfer {
    tb::Transfer {
        id,
        debit_account_id: debit,
        credit_account_id: credit,
        amount,
        ledger: LEDGER,
        code: 20,
        ..Default::default()
    }
}

fn create_accounts(client: &tb::Client, accounts: &[tb::Account]) {
    let results = block_on(client.create_accounts(accounts)).expect("the server answers");
    assert_eq!(results.len(), accounts.len());
    for result in results {
        assert_eq!(result.status, CreateAccountStatus::Created);
    }
}

fn statuses(client: &tb::Client, transfers: &[tb::Transfer]) -> Vec<CreateTransferStatus> {
    let results = block_on(client.create_transfers(transfers)).expect("the server answers");
    results.iter().map(|result| result.status).collect()
}

/// Pending and posted debits, pending and posted credits.
fn balances(client: &tb::Client, id: u128) -> [u128; 4] {
    let found = block_on(client.lookup_accounts(&[id])).expect("the server answers");
    let [account] = found[..] else {
        panic!("{found:?}")
    };
    [
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
    ]
}

#[test]
fn accounts_and_transfers_are_created_and_looked_up() {
    with_client("basic", |client, _| {
        create_accounts(client, &[account(1), account(2)]);
        assert_eq!(
            statuses(client, &[transfer(1, 1, 2, 100)]),
            [CreateTransferStatus::Created]
        );
        assert_eq!(balances(client, 1), [0, 100, 0, 0]);
        assert_eq!(balances(client, 2), [0, 0, 0, 100]);
        let found = block_on(client.lookup_transfers(&[5, 1])).expect("the server answers");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id, found[0].amount), (1, 100));
        assert!(found[0].timestamp > 0);
        // The same again, and other things under the same id.
        assert_eq!(
            statuses(
                client,
                &[
                    transfer(1, 1, 2, 100),
                    transfer(1, 1, 2, 99),
                    transfer(2, 1, 9, 1)
                ]
            ),
            [
                CreateTransferStatus::Exists,
                CreateTransferStatus::ExistsWithDifferentAmount,
                CreateTransferStatus::CreditAccountNotFound,
            ]
        );
        assert_eq!(balances(client, 1), [0, 100, 0, 0]);
    });
}

#[test]
fn two_phase_transfers_are_posted_voided_and_expire() {
    with_client("two-phase", |client, _| {
        create_accounts(client, &[account(1), account(2)]);
        let pending = |id, amount, timeout| tb::Transfer {
            flags: tb::TransferFlags::Pending,
            timeout,
            ..transfer(id, 1, 2, amount)
        };
        let resolve = |id, pending_id, amount, flags| tb::Transfer {
            id,
            pending_id,
            amount,
            flags,
            ..Default::default()
        };
        let created = [CreateTransferStatus::Created; 3];
        let all = [pending(1, 10, 0), pending(2, 20, 0), pending(3, 40, 1)];
        assert_eq!(statuses(client, &all), created);
        assert_eq!(balances(client, 1), [70, 0, 0, 0]);
        let (post, void) = (
            tb::TransferFlags::PostPendingTransfer,
            tb::TransferFlags::VoidPendingTransfer,
        );
        let resolved = [
            resolve(11, 1, 7, post),
            resolve(12, 2, 0, void),
            resolve(13, 1, 1, post),
        ];
        assert_eq!(
            statuses(client, &resolved),
            [
                CreateTransferStatus::Created,
                CreateTransferStatus::Created,
                CreateTransferStatus::PendingTransferAlreadyPosted,
            ]
        );
        assert_eq!(balances(client, 2), [0, 0, 40, 7]);
        let started = Instant::now();
        while balances(client, 2) != [0, 0, 0, 7] {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "it does not expire"
            );
            thread::sleep(Duration::from_millis(50));
        }
        assert!(
            started.elapsed() > Duration::from_millis(500),
            "it expired too early"
        );
        assert_eq!(
            statuses(client, &[resolve(14, 3, u128::MAX, post)]),
            [CreateTransferStatus::PendingTransferExpired]
        );
    });
}

#[test]
fn a_chain_succeeds_or_fails_as_one_and_limits_hold() {
    with_client("chains", |client, _| {
        let limited = tb::Account {
            flags: tb::AccountFlags::DebitsMustNotExceedCredits,
            ..account(3)
        };
        create_accounts(client, &[account(1), account(2), limited]);
        let linked = |transfer| tb::Transfer {
            flags: tb::TransferFlags::Linked,
            ..transfer
        };
        let chain = [
            linked(transfer(1, 1, 2, 5)),
            linked(transfer(2, 3, 1, 1)),
            transfer(3, 1, 2, 5),
        ];
        assert_eq!(
            statuses(client, &chain),
            [
                CreateTransferStatus::LinkedEventFailed,
                CreateTransferStatus::ExceedsCredits,
                CreateTransferStatus::LinkedEventFailed,
            ]
        );
        assert_eq!(balances(client, 2), [0; 4]);
        let chain = [
            linked(transfer(4, 1, 3, 5)),
            linked(transfer(5, 3, 1, 5)),
            transfer(6, 1, 2, 5),
        ];
        assert_eq!(statuses(client, &chain), [CreateTransferStatus::Created; 3]);
        assert_eq!(balances(client, 3), [0, 5, 0, 5]);
        assert_eq!(
            statuses(client, &[transfer(7, 3, 1, 1)]),
            [CreateTransferStatus::ExceedsCredits]
        );
    });
}

#[test]
fn queries_page_through_what_was_written() {
    with_client("queries", |client, _| {
        let history = |id| tb::Account {
            flags: tb::AccountFlags::History,
            ..account(id)
        };
        create_accounts(client, &[history(1), history(2), account(3)]);
        let transfers: Vec<tb::Transfer> = (1..=300)
            .map(|id| match id % 3 {
                0 => tb::Transfer {
                    user_data_64: 5,
                    ..transfer(id, 2, 1, 1)
                },
                1 => transfer(id, 1, 2, 2),
                _ => transfer(id, 1, 3, 3),
            })
            .collect();
        assert_eq!(
            statuses(client, &transfers),
            [CreateTransferStatus::Created; 300]
        );

        let filter = tb::AccountFilter {
            account_id: 2,
            limit: 150,
            flags: tb::AccountFilterFlags::Debits | tb::AccountFilterFlags::Credits,
            ..Default::default()
        };
        let first = block_on(client.get_account_transfers(filter)).expect("the server answers");
        let ids: Vec<u128> = first.iter().map(|transfer| transfer.id).collect();
        assert_eq!(ids, (1..=225).filter(|id| id % 3 != 2).collect::<Vec<_>>());
        let rest = tb::AccountFilter {
            timestamp_min: first[149].timestamp + 1,
            ..filter
        };
        let rest = block_on(client.get_account_transfers(rest)).expect("the server answers");
        assert_eq!(rest.len(), 50);

        let reversed = tb::AccountFilter {
            limit: 2,
            flags: filter.flags | tb::AccountFilterFlags::Reversed,
            ..filter
        };
        let last = block_on(client.get_account_balances(reversed)).expect("the server answers");
        assert_eq!(last.len(), 2);
        assert_eq!((last[0].debits_posted, last[0].credits_posted), (100, 200));

        let query = tb::QueryFilter {
            user_data_64: 5,
            limit: 8189,
            ..Default::default()
        };
        let found = block_on(client.query_transfers(query)).expect("the server answers");
        assert_eq!(found.len(), 100);
        let query = tb::QueryFilter {
            ledger: LEDGER,
            code: 10,
            limit: 10,
            ..Default::default()
        };
        let found = block_on(client.query_accounts(query)).expect("the server answers");
        assert_eq!(
            found.iter().map(|account| account.id).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    });
}

#[test]
fn the_largest_batches_pass_and_larger_ones_are_refused() {
    with_client("batches", |client, _| {
        let accounts: Vec<tb::Account> = (1..=8189).map(account).collect();
        create_accounts(client, &accounts);
        let transfers: Vec<tb::Transfer> = (1..=8189)
            .map(|id| transfer(id, id, id % 8189 + 1, id))
            .collect();
        let results = block_on(client.create_transfers(&transfers)).expect("the server answers");
        assert!(
            results
                .iter()
                .all(|result| result.status == CreateTransferStatus::Created)
        );
        assert!(
            results
                .windows(2)
                .all(|pair| pair[0].timestamp + 1 == pair[1].timestamp)
        );
        let ids: Vec<u128> = (1..=8189).collect();
        let found = block_on(client.lookup_transfers(&ids)).expect("the server answers");
        assert!(found.iter().map(|transfer| transfer.id).eq(1..=8189));
        assert_eq!(balances(client, 5000), [0, 5000, 0, 4999]);
        let one_more: Vec<tb::Account> = (1..=8190).map(account).collect();
        let refused = block_on(client.create_accounts(&one_more));
        assert_eq!(refused.err(), Some(tb::Error::TooMuchData));
    });
}

#[test]
fn clients_at_once_do_not_disturb_each_other() {
    const CLIENTS: u128 = 10;
    const BATCHES: u128 = 20;
    const BATCH: u128 = 200;
    with_client("at-once", |client, server| {
        create_accounts(client, &[account(1), account(2)]);
        thread::scope(|scope| {
            for index in 1..=CLIENTS {
                let _thread = scope.spawn(move || {
                    let client = connect(server);
                    // All requests are submitted at once: the client queues and merges them.
                    let requests: Vec<_> = (0..BATCHES)
                        .map(|batch| {
                            let ids = batch * BATCH..(batch + 1) * BATCH;
                            let transfers: Vec<tb::Transfer> =
                                ids.map(|id| transfer(index << 64 | id, 1, 2, 1)).collect();
                            client.create_transfers(&transfers)
                        })
                        .collect();
                    for request in requests {
                        let results = block_on(request).expect("the server answers");
                        assert_eq!(results.len(), usize::try_from(BATCH).expect("small"));
                        for result in results {
                            assert_eq!(result.status, CreateTransferStatus::Created);
                        }
                    }
                    block_on(client.close()).expect("it closes");
                });
            }
        });
        let total = CLIENTS * BATCHES * BATCH;
        assert_eq!(balances(client, 1), [0, total, 0, 0]);
        assert_eq!(balances(client, 2), [0, 0, 0, total]);
    });
}

#[test]
fn another_cluster_is_not_served() {
    with_client("cluster", |_, server| {
        let stranger = tb::Client::new(1, &server.address()).expect("the address is right");
        let started = Instant::now();
        let mut request = Box::pin(stranger.lookup_accounts(&[1]));
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        while started.elapsed() < Duration::from_secs(2) {
            let poll = request.as_mut().poll(&mut context);
            assert!(
                poll.is_pending(),
                "a server of cluster 0 answered: {poll:?}"
            );
            thread::sleep(Duration::from_millis(100));
        }
        drop(request);
        block_on(stranger.close()).expect("it closes");
    });
}
