//! Carries a table out on ledgers of its own.

use crate::found::{BALANCES, balance_word, change_word, compare, id_words};
use crate::parse::{Row, assignment, event, number_of, operation_of, query, rows, time_of};
use crate::record::{
    ACCOUNT, ACCOUNT_FLAGS, BALANCE, CHANGE_EVENT, CHANGE_EVENTS_FILTER, Record, TRANSFER,
    TRANSFER_FLAGS, number,
};
use daftari::ledger::{LedgerInMemory, LedgerOptions};
use daftari::wire::multi_batch::{Batches, encode};
use daftari::wire::{CreateAccountStatus, CreateResult, CreateTransferStatus, Operation};
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::{FromBytes, IntoBytes};

/// What a table expects at least once: `create_accounts created`, `create_accounts history`.
pub(crate) type Covered = BTreeSet<String>;

/// An event of the request that is being put together.
struct Event {
    line: usize,
    record: Record,
    /// The status and, where it is not the time of the event, the timestamp.
    status: String,
    timestamp: Option<u64>,
}

struct Runner<'a> {
    file: &'a str,
    ledger: LedgerInMemory,
    /// The timestamp of the next event.
    next: u64,
    operation: Operation,
    /// Events of the request in their batches; the last batch may be empty.
    batches: Vec<Vec<Event>>,
    failures: Vec<String>,
    covered: Covered,
}

/// Carries out all rows of a table, and gives what they cover.
///
/// # Panics
/// When a row cannot be read, or something else comes out than it says; names file and line.
pub(crate) fn run(file: &str, text: &str) -> Covered {
    let mut runner = Runner {
        file,
        ledger: ledger(),
        next: 1,
        operation: Operation::CreateAccounts,
        batches: vec![Vec::new()],
        failures: Vec::new(),
        covered: Covered::new(),
    };
    for row in rows(text) {
        if let Err(error) = runner.row(&row) {
            runner.fail(row.line, &error);
        }
    }
    runner.commit();
    assert!(
        runner.failures.is_empty(),
        "\n{}",
        runner.failures.join("\n")
    );
    runner.covered
}

fn ledger() -> LedgerInMemory {
    LedgerInMemory::new(LedgerOptions {
        memory_limit: 1 << 30,
        account_cache_size: 0,
    })
}

fn outcome(operation: Operation, result: &CreateResult) -> Option<&'static str> {
    let status = result.status.get();
    if operation == Operation::CreateAccounts {
        CreateAccountStatus::from_code(status).map(CreateAccountStatus::name)
    } else {
        CreateTransferStatus::from_code(status).map(CreateTransferStatus::name)
    }
}

impl Runner<'_> {
    fn fail(&mut self, line: usize, error: &str) {
        let file = self.file;
        self.failures
            .push(format!("tests/ledger_rules/{file}:{line}: {error}"));
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), String> {
        let words = row.words.as_slice();
        let silent = ["test", "batch", "commit", "at", "balance", "show"];
        if silent.contains(&words[0]) && !row.expected.is_empty() {
            return Err(format!("{} expects nothing after ->", words[0]));
        }
        if words[0] == "repeat" {
            return self.repeat(row);
        }
        if let Some(operation) = operation_of(words[0]) {
            return self.event(row, operation, event(words)?);
        }
        if words[0] == "batch" {
            self.batches.push(Vec::new());
            return Ok(());
        }
        self.commit();
        match words[0] {
            "test" => {
                self.ledger = ledger();
                self.next = 1;
            }
            "commit" => {}
            "at" => self.advance(time_of(words)?)?,
            "pulse" => return self.pulse(row),
            "next_pulse" => {
                let next = self.ledger.ledger.pulse_next();
                let found = if next == u64::MAX {
                    "never".into()
                } else {
                    format!("@{next}")
                };
                return compare(row, &[found]);
            }
            "balance" | "show" => return self.show(words),
            "lookup_accounts" | "lookup_transfers" => return self.lookup(row),
            "count" => {
                let found = self.query(&words[1..])?.len();
                return compare(row, &[found.to_string()]);
            }
            _ => {
                let found = self.query(words)?;
                return compare(row, &found);
            }
        }
        Ok(())
    }

    fn advance(&mut self, time: u64) -> Result<(), String> {
        if time < self.next {
            return Err(format!("it is {} already", self.next));
        }
        self.next = time;
        Ok(())
    }

    fn event(&mut self, row: &Row<'_>, operation: Operation, record: Record) -> Result<(), String> {
        if operation != self.operation {
            self.commit();
            self.operation = operation;
        }
        let (status, timestamp) = match row.expected.as_slice() {
            [status] => (*status, None),
            [status, time] => {
                let time = number(time.trim_start_matches('@'))?;
                (*status, Some(u64::try_from(time).or(Err("no time"))?))
            }
            _ => return Err("an event has a status, and perhaps @ and a timestamp".into()),
        };
        let batch = self.batches.last_mut().ok_or("there is a batch")?;
        batch.push(Event {
            line: row.line,
            record,
            status: status.into(),
            timestamp,
        });
        Ok(())
    }

    /// `repeat 3 transfer T1 ..`: so many events whose ids count up.
    fn repeat(&mut self, row: &Row<'_>) -> Result<(), String> {
        let count = number_of(&row.words, 1)?;
        let words = row.words.get(2..).unwrap_or(&[]);
        let operation = words.first().and_then(|word| operation_of(word));
        let operation = operation.ok_or("only events repeat")?;
        for index in 0..count {
            let mut record = event(words)?;
            record.set("id", record.get("id")? + index)?;
            self.event(row, operation, record)?;
        }
        Ok(())
    }

    /// Sends the request that the rows so far make, and compares its results with them.
    fn commit(&mut self) {
        let batches = std::mem::replace(&mut self.batches, vec![Vec::new()]);
        let count: usize = batches.iter().map(Vec::len).sum();
        if count == 0 {
            return;
        }
        let bodies: Vec<Vec<u8>> = batches
            .iter()
            .map(|batch| {
                let events = batch.iter().map(|event| event.record.bytes.as_slice());
                events.collect::<Vec<_>>().concat()
            })
            .collect();
        let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
        let first = self.next;
        self.next += u64::try_from(count).expect("a request is small");
        let reply = self.execute(self.operation, self.next - 1, &encode(128, &bodies));
        let results: Vec<CreateResult> = Batches::decode(size_of::<CreateResult>(), &reply)
            .expect("a reply has a trailer")
            .flat_map(|batch| {
                <[CreateResult]>::ref_from_bytes(batch).expect("a batch has whole results")
            })
            .copied()
            .collect();
        assert_eq!(results.len(), count, "every event has a result");
        let events = batches.into_iter().flatten();
        for ((time, event), result) in (first..).zip(events).zip(results) {
            self.check_result(time, &event, &result);
        }
    }

    fn check_result(&mut self, time: u64, event: &Event, result: &CreateResult) {
        let operation = self.operation.name();
        let accounts = self.operation == Operation::CreateAccounts;
        let bits = if accounts {
            ACCOUNT_FLAGS
        } else {
            TRANSFER_FLAGS
        };
        let flags = event.record.get("flags").expect("an event has flags");
        let stamp = event.record.get("timestamp").expect("it has a timestamp");
        let _ = self.covered.insert(format!("{operation} {}", event.status));
        let created = event.status == "created";
        if created {
            for (bit, name) in bits.iter().enumerate() {
                if flags >> bit & 1 == 1 {
                    let _ = self.covered.insert(format!("{operation} {name}"));
                }
            }
        } else if event.status == "exists" && event.timestamp.is_none() {
            self.fail(event.line, "exists needs the timestamp of what exists");
        }
        // What was imported has the client's timestamp; all else that of the event.
        let expected = event.timestamp.map(u128::from);
        let own = if created && stamp != 0 {
            stamp
        } else {
            time.into()
        };
        let expected = expected.unwrap_or(own);
        let status = outcome(self.operation, result).unwrap_or("an unknown status");
        let timestamp = u128::from(result.timestamp.get());
        if status != event.status || timestamp != expected {
            let wanted = &event.status;
            let error = format!("expected {wanted} @{expected}, got {status} @{timestamp}");
            self.fail(event.line, &error);
        }
    }

    fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
        let mut reply = Vec::new();
        self.ledger.execute(operation, timestamp, body, &mut reply);
        reply
    }

    /// The results of a read with one batch.
    fn read(&mut self, operation: Operation, events: &[u8]) -> Vec<u8> {
        if !operation.is_multi_batch() {
            return self.execute(operation, self.next, events);
        }
        let body = encode(operation.event_size(), &[events]);
        let reply = self.execute(operation, self.next, &body);
        Batches::decode(operation.result_size(), &reply)
            .expect("a reply has a trailer")
            .payload()
            .to_vec()
    }

    /// The results of a query, each as one word.
    fn query(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        let (operation, filter) = query(words)?;
        let results = self.read(operation, &filter.bytes);
        if operation == Operation::GetAccountBalances {
            let records = Record::all(&BALANCE, &results);
            records.iter().map(balance_word).collect()
        } else if operation == Operation::GetChangeEvents {
            let records = Record::all(&CHANGE_EVENT, &results);
            records.iter().map(change_word).collect()
        } else if operation == Operation::QueryAccounts {
            id_words('A', &Record::all(&ACCOUNT, &results))
        } else {
            id_words('T', &Record::all(&TRANSFER, &results))
        }
    }

    fn lookup(&mut self, row: &Row<'_>) -> Result<(), String> {
        let mut ids = Vec::new();
        for index in 1..row.words.len() {
            ids.push(number_of(&row.words, index)?);
        }
        let found = if row.words[0] == "lookup_accounts" {
            let results = self.read(Operation::LookupAccounts, ids.as_bytes());
            id_words('A', &Record::all(&ACCOUNT, &results))?
        } else {
            let results = self.read(Operation::LookupTransfers, ids.as_bytes());
            id_words('T', &Record::all(&TRANSFER, &results))?
        };
        compare(row, &found)
    }

    /// Expires what is due; a row may expect the transfers that expired.
    fn pulse(&mut self, row: &Row<'_>) -> Result<(), String> {
        let time = time_of(&row.words)?;
        let first = self.next;
        self.advance(time)?;
        self.next += 1;
        if self.ledger.ledger.pulse_due(time) {
            self.ledger.pulse(time);
        }
        if row.expected.is_empty() {
            return Ok(());
        }
        let min = format!("timestamp_min={first}");
        let found = self.query(&["change_events", &min])?;
        compare(row, &found)
    }

    /// `balance A1 dpo=10`: the other balances are zero. `show account A1 ..`,
    /// `show transfer T1 ..`, `show event TIME ..`: nothing is said of the other fields.
    fn show(&mut self, words: &[&str]) -> Result<(), String> {
        let mut expected = BTreeMap::new();
        let words = if words[0] == "show" {
            &words[1..]
        } else {
            expected.extend(BALANCES.map(|name| (name, 0)));
            words
        };
        let id = number_of(words, 1)?;
        let records = match words[0] {
            "balance" | "account" => {
                let results = self.read(Operation::LookupAccounts, id.as_bytes());
                Record::all(&ACCOUNT, &results)
            }
            "transfer" => {
                let results = self.read(Operation::LookupTransfers, id.as_bytes());
                Record::all(&TRANSFER, &results)
            }
            "event" => {
                let _ = expected.insert("timestamp", id);
                let mut filter = Record::zeroed(&CHANGE_EVENTS_FILTER);
                filter.set("timestamp_min", id)?;
                filter.set("limit", 1)?;
                let results = self.read(Operation::GetChangeEvents, &filter.bytes);
                Record::all(&CHANGE_EVENT, &results)
            }
            other => return Err(format!("{other} cannot be shown")),
        };
        let record = records.first().ok_or("it is not there")?;
        for word in &words[2..] {
            expected.extend([assignment(record, word)?]);
        }
        for (name, value) in expected {
            let found = record.get(name)?;
            if found != value {
                return Err(format!("expected {name}={value}, got {found}"));
            }
        }
        Ok(())
    }
}
