//! SIGKILL at random moments under load, again and again on the same file.
//!
//! Eight clients send batches of transfers whose every field is a function of the id. A round runs
//! them, kills the server, starts it again, and checks that
//! * every acknowledged transfer is there, with the timestamp that was acknowledged;
//! * an unanswered batch is there as a whole or not at all, and sending it again gets what it must:
//!   in its session the reply of its one execution, in a new one `exists` or `created`;
//! * the last reply comes again with the same bytes, but for the view;
//! * the balances of all accounts are exactly those of the acknowledged transfers: none was lost,
//!   none was applied twice, debits equal credits.
//!
//! `DAFTARI_CRASH_ROUNDS` (10) and `DAFTARI_CRASH_SEED` change how long and how.
#![expect(clippy::print_stderr, reason = "a failure has to name its seed")]

use crate::raw::{Answer, Raw, Reply};
use crate::util::{
    Directory, Random, Server, block_on, format, free_port, number_from_environment,
};
use daftari::wire::{
    Account, CreateAccountStatus, CreateResult, CreateTransferStatus, Operation, Transfer,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tigerbeetle as tb;
use zerocopy::{FromBytes, IntoBytes};

const CLIENTS: u64 = 8;
const ACCOUNTS: u64 = 40;
const LEDGERS: u64 = 2;
/// Sizes of batches; all are multiples of 4, so that a batch has whole pairs of pending and post.
const BATCHES: &[u64] = &[4, 4, 4, 4, 8, 8, 16, 40, 100, 400];
const PENDING: u16 = 1 << 1;
const POST: u16 = 1 << 2;

#[test]
fn what_was_acknowledged_survives_every_crash() {
    let rounds = number_from_environment("DAFTARI_CRASH_ROUNDS").unwrap_or(10);
    let mut random = Random::from_environment("DAFTARI_CRASH_SEED");
    eprintln!(
        "DAFTARI_CRASH_SEED={} DAFTARI_CRASH_ROUNDS={rounds}",
        random.0
    );
    let directory = Directory::new("crash");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let port = free_port();

    let mut server = Server::start(&file, port, &[]);
    create_accounts(port);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|index| Client::new(port, index, random.next()))
        .collect();
    for round in 0..rounds {
        let load = Duration::from_millis(20 + random.below(250));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in &mut clients {
                let _thread = scope.spawn(|| client.load(&stop));
            }
            thread::sleep(load);
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        while random.below(4) == 0 {
            // Another crash, while it recovers.
            let recovering = Server::spawn(&file, port, &[]);
            thread::sleep(Duration::from_millis(random.below(120)));
            recovering.kill();
        }
        server = Server::start(&file, port, &[]);
        let observer = tb::Client::new(0, &server.address()).expect("the address is right");
        for client in &mut clients {
            client.recover(&observer);
            client.verify_new(&observer);
        }
        verify_balances(&observer, &clients);
        if (round + 1) % 50 == 0 || round + 1 == rounds {
            for client in &clients {
                client.verify(&observer, 0);
            }
            let count: usize = clients.iter().map(|client| client.acknowledged.len()).sum();
            eprintln!(
                "round {}: {count} transfers, each there exactly once",
                round + 1
            );
        }
        block_on(observer.close()).expect("it closes");
    }
    let count: usize = clients.iter().map(|client| client.acknowledged.len()).sum();
    assert!(count > 0, "the load did nothing");
    let (status, _) = server.terminate();
    assert!(status.success());
}

fn account_id(number: u64) -> u128 {
    1000 + u128::from(number)
}

fn ledger_of(number: u64) -> u32 {
    u32::try_from(1 + number % LEDGERS).expect("small")
}

fn create_accounts(port: u16) {
    let mut client = Raw::registered(port, 77);
    let accounts: Vec<Account> = (0..ACCOUNTS)
        .map(|number| Account {
            id: account_id(number).into(),
            ledger: ledger_of(number).into(),
            code: 1.into(),
            ..Account::zeroed()
        })
        .collect();
    let answer = client.call(Operation::CreateAccounts, 128, accounts.as_bytes());
    let Ok(Answer::Reply(reply)) = answer else {
        panic!("{answer:?}")
    };
    for result in results(&reply) {
        assert_eq!(result.status.get(), CreateAccountStatus::Created.code());
    }
}

/// The results of a create reply of one batch.
fn results(reply: &Reply) -> Vec<CreateResult> {
    let batches = daftari::wire::Batches::decode(size_of::<CreateResult>(), &reply.body);
    let batches = batches.expect("the reply is well formed");
    let results = <[CreateResult]>::ref_from_bytes(batches.payload());
    results.expect("the payload has whole results").to_vec()
}

/// What transfers did to an account: pending and posted debits, pending and posted credits.
type Balances = BTreeMap<u64, [u128; 4]>;

/// A request without an answer.
#[derive(Debug)]
struct Unanswered {
    frame: Vec<u8>,
    first: u64,
    count: u64,
}

#[derive(Debug)]
struct Client {
    index: u64,
    raw: Raw,
    random: Random,
    /// Timestamps of the acknowledged transfers, in their order.
    acknowledged: Vec<u64>,
    /// So many of them were looked up after a crash.
    verified: usize,
    balances: Balances,
    unanswered: Option<Unanswered>,
    /// The newest request that was answered in this session.
    last: Option<(Vec<u8>, Box<Reply>)>,
}

impl Client {
    fn new(port: u16, index: u64, seed: u64) -> Self {
        let mut random = Random(seed);
        let client = u128::from(random.next()) << 64 | 1;
        Self {
            index,
            raw: Raw::registered(port, client),
            random,
            acknowledged: Vec::new(),
            verified: 0,
            balances: Balances::new(),
            unanswered: None,
            last: None,
        }
    }

    fn id(&self, number: u64) -> u128 {
        u128::from(self.index + 1) << 64 | u128::from(number + 1)
    }

    /// The transfer of that number: of four, two are plain, one is pending, and the last posts it;
    /// every fourth pending one stays open.
    fn transfer(&self, number: u64) -> Transfer {
        let pick = Random(number / 4 * CLIENTS + self.index).next();
        let debit = pick % ACCOUNTS;
        let credit =
            (debit + LEDGERS * (1 + pick / ACCOUNTS % (ACCOUNTS / LEDGERS - 1))) % ACCOUNTS;
        let plain = Transfer {
            id: self.id(number).into(),
            debit_account_id: account_id(debit).into(),
            credit_account_id: account_id(credit).into(),
            amount: (1 + u128::from(pick >> 32)).into(),
            user_data_64: number.into(),
            ledger: ledger_of(debit).into(),
            code: 7.into(),
            ..Transfer::zeroed()
        };
        let open = number / 4 % 4 == 3;
        match number % 4 {
            2 => Transfer {
                flags: PENDING.into(),
                ..plain
            },
            3 if !open => Transfer {
                flags: POST.into(),
                pending_id: self.id(number - 1).into(),
                ..plain
            },
            _ => plain,
        }
    }

    /// Notes that the transfer took effect.
    fn count(&mut self, number: u64) {
        let transfer = self.transfer(number);
        let amount = transfer.amount.get();
        let number_of = |id: u128| u64::try_from(id - account_id(0)).expect("small");
        let debit = number_of(transfer.debit_account_id.get());
        let credit = number_of(transfer.credit_account_id.get());
        let pending = transfer.flags.get() == PENDING;
        let [debits_pending, debits_posted, ..] = self.balances.entry(debit).or_default();
        *(if pending {
            &mut *debits_pending
        } else {
            debits_posted
        }) += amount;
        if transfer.flags.get() == POST {
            *debits_pending -= amount;
        }
        let [.., credits_pending, credits_posted] = self.balances.entry(credit).or_default();
        *(if pending {
            &mut *credits_pending
        } else {
            credits_posted
        }) += amount;
        if transfer.flags.get() == POST {
            *credits_pending -= amount;
        }
    }

    fn events(&self, first: u64, count: u64) -> Vec<u8> {
        let transfers: Vec<Transfer> = (first..first + count)
            .map(|number| self.transfer(number))
            .collect();
        transfers.as_bytes().to_vec()
    }

    /// Sends batches until the server is gone.
    fn load(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let first = u64::try_from(self.acknowledged.len()).expect("it has 64 bits");
            let pick = usize::try_from(self.random.next() >> 1).expect("it has 64 bits");
            let count = BATCHES[pick % BATCHES.len()];
            let events = self.events(first, count);
            let frame = self.raw.frame(Operation::CreateTransfers, 128, &events);
            self.unanswered = Some(Unanswered {
                frame,
                first,
                count,
            });
            if self.send_unanswered().is_err() {
                return;
            }
            // Some clients think, so that the crash often finds them with all answers at hand.
            if self.index.is_multiple_of(2) {
                thread::sleep(Duration::from_millis(self.random.below(8)));
            }
        }
    }

    /// Sends the unanswered request, for the first time or again: every transfer has to be
    /// `created`, because a request is executed once.
    fn send_unanswered(&mut self) -> std::io::Result<()> {
        let unanswered = self.unanswered.take().expect("the caller made one");
        let answer = match self.raw.exchange(&unanswered.frame) {
            Ok(answer) => answer,
            Err(error) => {
                self.unanswered = Some(unanswered);
                return Err(error);
            }
        };
        let Answer::Reply(reply) = answer else {
            panic!("{answer:?}")
        };
        self.raw.advance(&reply);
        let results = results(&reply);
        assert_eq!(
            results.len(),
            usize::try_from(unanswered.count).expect("small")
        );
        let from = reply.header.timestamp.get() - unanswered.count + 1;
        for (result, timestamp) in results.iter().zip(from..) {
            assert_eq!(
                result.status.get(),
                CreateTransferStatus::Created.code(),
                "{self:?}"
            );
            assert_eq!(result.timestamp.get(), timestamp);
        }
        self.acknowledge(&unanswered, &results);
        self.last = Some((unanswered.frame, reply));
        Ok(())
    }

    fn acknowledge(&mut self, unanswered: &Unanswered, results: &[CreateResult]) {
        for (number, result) in (unanswered.first..).zip(results) {
            self.count(number);
            let before = self.acknowledged.last().copied().unwrap_or(0);
            assert!(result.timestamp.get() > before);
            self.acknowledged.push(result.timestamp.get());
        }
    }

    /// After a restart: settles the request that has no answer.
    fn recover(&mut self, observer: &tb::Client) {
        self.raw.disconnect();
        let Some(unanswered) = &self.unanswered else {
            self.last_reply_comes_again();
            return;
        };
        let ids: Vec<u128> = (unanswered.first..unanswered.first + unanswered.count)
            .map(|number| self.id(number))
            .collect();
        let found = block_on(observer.lookup_transfers(&ids)).expect("the server answers");
        assert!(
            found.is_empty() || found.len() == ids.len(),
            "a part of a batch: {found:?}"
        );
        if self.random.below(4) == 0 {
            self.send_from_a_new_session(&found);
        } else {
            if found.is_empty() {
                self.last_reply_comes_again();
            }
            self.send_unanswered().expect("the server is there");
            let timestamps = self.acknowledged.iter().rev().take(found.len()).rev();
            assert!(
                found
                    .iter()
                    .map(|transfer| &transfer.timestamp)
                    .eq(timestamps)
            );
        }
        self.last_reply_comes_again();
    }

    /// The client has lost its session and its requests, and asks for the same transfers.
    fn send_from_a_new_session(&mut self, found: &[tb::Transfer]) {
        let unanswered = self.unanswered.take().expect("the caller found one");
        self.raw.state.client = u128::from(self.random.next()) << 64 | 1;
        self.raw.state.session = 0;
        self.raw.state.request = 0;
        self.raw.state.parent = storage_format::Checksum([0; 16]);
        self.raw.register().expect("the server is there");
        let events = self.events(unanswered.first, unanswered.count);
        let frame = self.raw.frame(Operation::CreateTransfers, 128, &events);
        let answer = self.raw.exchange(&frame);
        let Ok(Answer::Reply(reply)) = answer else {
            panic!("{answer:?}")
        };
        self.raw.advance(&reply);
        let results = results(&reply);
        let expected = match found.is_empty() {
            true => CreateTransferStatus::Created,
            false => CreateTransferStatus::Exists,
        };
        for (position, result) in results.iter().enumerate() {
            assert_eq!(result.status.get(), expected.code());
            if let Some(transfer) = found.get(position) {
                assert_eq!(result.timestamp.get(), transfer.timestamp);
            }
        }
        self.acknowledge(&unanswered, &results);
        self.last = Some((frame, reply));
    }

    /// The newest request that was answered gets the same answer again.
    fn last_reply_comes_again(&mut self) {
        let Some((frame, reply)) = &self.last else {
            return;
        };
        let answer = self.raw.exchange(frame);
        let Ok(Answer::Reply(again)) = answer else {
            panic!("{answer:?}")
        };
        assert!(
            reply.is_repeated_by(&again),
            "{:?} then {:?}",
            reply.header,
            again.header
        );
    }

    /// Looks up what was acknowledged since the last time, and a sample of the rest.
    fn verify_new(&mut self, observer: &tb::Client) {
        let sample = self
            .random
            .below(1 + u64::try_from(self.verified).expect("64 bits"));
        let sample = usize::try_from(sample).expect("64 bits");
        let ids = self.acknowledged.len().min(sample + 500);
        self.verify_range(observer, sample, ids);
        self.send_again(observer, sample, ids);
        self.verify(observer, self.verified);
        self.verified = self.acknowledged.len();
    }

    fn verify(&self, observer: &tb::Client, from: usize) {
        for first in (from..self.acknowledged.len()).step_by(8000) {
            self.verify_range(observer, first, self.acknowledged.len().min(first + 8000));
        }
    }

    fn verify_range(&self, observer: &tb::Client, from: usize, to: usize) {
        let numbers = u64::try_from(from).expect("64 bits")..u64::try_from(to).expect("64 bits");
        let ids: Vec<u128> = numbers.clone().map(|number| self.id(number)).collect();
        if ids.is_empty() {
            return;
        }
        let found = block_on(observer.lookup_transfers(&ids)).expect("the server answers");
        assert_eq!(
            found.len(),
            ids.len(),
            "acknowledged transfers of {} are lost",
            self.index
        );
        for (number, found) in numbers.zip(found) {
            let position = usize::try_from(number).expect("64 bits");
            assert_eq!(found.timestamp, self.acknowledged[position]);
            let expected = self.transfer(number);
            assert_eq!(found.id, expected.id.get());
            assert_eq!(found.debit_account_id, expected.debit_account_id.get());
            assert_eq!(found.credit_account_id, expected.credit_account_id.get());
            assert_eq!(found.amount, expected.amount.get());
            assert_eq!(found.pending_id, expected.pending_id.get());
            assert_eq!(found.user_data_64, number);
            assert_eq!(found.ledger, expected.ledger.get());
            assert_eq!(found.flags.0, expected.flags.get());
        }
    }
}

impl Client {
    /// Creates acknowledged transfers once more: they exist, with their timestamps.
    fn send_again(&self, observer: &tb::Client, from: usize, to: usize) {
        let numbers = u64::try_from(from).expect("64 bits")..u64::try_from(to).expect("64 bits");
        let transfers: Vec<tb::Transfer> = numbers
            .map(|number| self.transfer(number))
            .map(|transfer| tb::Transfer {
                id: transfer.id.get(),
                debit_account_id: transfer.debit_account_id.get(),
                credit_account_id: transfer.credit_account_id.get(),
                amount: transfer.amount.get(),
                pending_id: transfer.pending_id.get(),
                user_data_64: transfer.user_data_64.get(),
                ledger: transfer.ledger.get(),
                code: transfer.code.get(),
                flags: tb::TransferFlags(transfer.flags.get()),
                ..Default::default()
            })
            .collect();
        let results = block_on(observer.create_transfers(&transfers)).expect("the server answers");
        assert_eq!(results.len(), to - from);
        for (result, timestamp) in results.iter().zip(&self.acknowledged[from..to]) {
            assert_eq!(result.status, tb::CreateTransferStatus::Exists);
            assert_eq!(result.timestamp, *timestamp);
        }
    }
}

/// Every balance is the sum over the acknowledged transfers of all clients.
fn verify_balances(observer: &tb::Client, clients: &[Client]) {
    let started = Instant::now();
    let ids: Vec<u128> = (0..ACCOUNTS).map(account_id).collect();
    let accounts = block_on(observer.lookup_accounts(&ids)).expect("the server answers");
    assert_eq!(accounts.len(), ids.len());
    let mut sums: BTreeMap<u32, [u128; 4]> = BTreeMap::new();
    for (number, account) in (0..).zip(&accounts) {
        let mut expected = [0; 4];
        for client in clients {
            let of_client = client.balances.get(&number).copied().unwrap_or_default();
            for (sum, part) in expected.iter_mut().zip(of_client) {
                *sum += part;
            }
        }
        let actual = [
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted,
        ];
        assert_eq!(actual, expected, "account {number}");
        let sums = sums.entry(account.ledger).or_default();
        for (sum, part) in sums.iter_mut().zip(actual) {
            *sum += part;
        }
    }
    for (
        ledger,
        [
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
        ],
    ) in sums
    {
        assert_eq!(debits_pending, credits_pending, "ledger {ledger}");
        assert_eq!(debits_posted, credits_posted, "ledger {ledger}");
    }
    assert!(started.elapsed() < Duration::from_secs(30));
}
