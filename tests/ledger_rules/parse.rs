//! From the text of a table to rows, events and filters.

use crate::record::{ACCOUNT, ACCOUNT_FILTER, CHANGE_EVENTS_FILTER, QUERY_FILTER, TRANSFER};
use crate::record::{Layout, Record, number};
use daftari::wire::Operation;

/// A line that says something: words, and what is expected.
pub(crate) struct Row<'a> {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) words: Vec<&'a str>,
    pub(crate) expected: Vec<&'a str>,
}

/// The rows of a table; `#` begins a comment.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    (1..).zip(text.lines()).filter_map(|(line, text)| {
        let text = text.split('#').next().unwrap_or("");
        let (words, expected) = text.split_once(" -> ").unwrap_or((text, ""));
        let words: Vec<&str> = words.split_whitespace().collect();
        let expected = expected.split_whitespace().collect();
        (!words.is_empty()).then_some(Row {
            line,
            words,
            expected,
        })
    })
}

/// What of a row is neither its first word nor what is expected.
fn argument<'a>(words: &[&'a str], index: usize) -> Result<&'a str, String> {
    let word = words.get(index).copied();
    word.ok_or_else(|| format!("{} needs {index} words after it", words[0]))
}

/// The number in a row.
pub(crate) fn number_of(words: &[&str], index: usize) -> Result<u128, String> {
    number(argument(words, index)?)
}

/// The time in a row.
pub(crate) fn time_of(words: &[&str]) -> Result<u64, String> {
    let text = argument(words, 1)?;
    let time = number(text)?;
    u64::try_from(time).or(Err(format!("{text} is not a time")))
}

/// Short names of fields.
fn field_name(name: &str) -> &str {
    match name {
        "dp" => "debits_pending",
        "dpo" => "debits_posted",
        "cp" => "credits_pending",
        "cpo" => "credits_posted",
        _ => name,
    }
}

/// `field=value`: the name in full, and the value.
pub(crate) fn assignment<'a>(record: &Record, word: &'a str) -> Result<(&'a str, u128), String> {
    let (name, text) = word
        .split_once('=')
        .ok_or_else(|| format!("{word} is not field=value"))?;
    let name = field_name(name);
    Ok((name, record.value(name, text)?))
}

fn assign(record: &mut Record, words: &[&str]) -> Result<(), String> {
    for word in words {
        if let Some((debit, credit)) = word.split_once("->") {
            record.set("debit_account_id", number(debit)?)?;
            record.set("credit_account_id", number(credit)?)?;
        } else {
            let (name, value) = assignment(record, word)?;
            record.set(name, value)?;
        }
    }
    Ok(())
}

/// The operation that a row is an event of.
pub(crate) fn operation_of(word: &str) -> Option<Operation> {
    match word {
        "account" => Some(Operation::CreateAccounts),
        "transfer" | "post" | "void" => Some(Operation::CreateTransfers),
        _ => None,
    }
}

/// `account A1 ..`, `transfer T1 A1->A2 ..`, `post T2 T1 ..` or `void T2 T1 ..`.
///
/// Ledger and code are 1 unless the row says otherwise, but for posts and voids, which may leave
/// them to the pending transfer.
pub(crate) fn event(words: &[&str]) -> Result<Record, String> {
    let word = words[0];
    let account = word == "account";
    let resolves = word == "post" || word == "void";
    let mut record = Record::zeroed(if account { &ACCOUNT } else { &TRANSFER });
    record.set("id", number_of(words, 1)?)?;
    if resolves {
        record.set("pending_id", number_of(words, 2)?)?;
        assign(&mut record, &words[3..])?;
        let flags = record.get("flags")? | record.value("flags", word)?;
        record.set("flags", flags)?;
    } else {
        record.set("ledger", 1)?;
        record.set("code", 1)?;
        assign(&mut record, &words[2..])?;
    }
    Ok(record)
}

/// A query: its operation, and its filter with a limit of 100 and both sides unless the row says
/// otherwise.
pub(crate) fn query(words: &[&str]) -> Result<(Operation, Record), String> {
    let word = words.first().copied().unwrap_or("nothing");
    let (operation, layout): (Operation, &'static Layout) = match word {
        "account_transfers" => (Operation::GetAccountTransfers, &ACCOUNT_FILTER),
        "account_balances" => (Operation::GetAccountBalances, &ACCOUNT_FILTER),
        "query_accounts" => (Operation::QueryAccounts, &QUERY_FILTER),
        "query_transfers" => (Operation::QueryTransfers, &QUERY_FILTER),
        "change_events" => (Operation::GetChangeEvents, &CHANGE_EVENTS_FILTER),
        _ => return Err(format!("{word} is no row and no query")),
    };
    let mut filter = Record::zeroed(layout);
    filter.set("limit", 100)?;
    let mut rest = &words[1..];
    if word.starts_with("account_") {
        filter.set("account_id", number_of(words, 1)?)?;
        filter.set("flags", filter.value("flags", "debits|credits")?)?;
        rest = &words[2..];
    }
    assign(&mut filter, rest)?;
    Ok((operation, filter))
}
