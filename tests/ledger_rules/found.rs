//! What a read finds, as words, and the comparison with what a row expects.

use crate::parse::Row;
use crate::record::{Record, number};

const KINDS: [&str; 5] = ["single_phase", "pending", "posted", "voided", "expired"];
pub(crate) const BALANCES: [&str; 4] = [
    "debits_pending",
    "debits_posted",
    "credits_pending",
    "credits_posted",
];

pub(crate) fn id_words(prefix: char, records: &[Record]) -> Result<Vec<String>, String> {
    let ids = records.iter().map(|record| record.get("id"));
    ids.map(|id| Ok(format!("{prefix}{}", id?))).collect()
}

/// `@TIME:DEBITS_PENDING/DEBITS_POSTED/CREDITS_PENDING/CREDITS_POSTED`.
pub(crate) fn balance_word(balance: &Record) -> Result<String, String> {
    let amounts: Result<Vec<String>, String> = BALANCES
        .iter()
        .map(|name| Ok(balance.get(name)?.to_string()))
        .collect();
    Ok(format!(
        "@{}:{}",
        balance.get("timestamp")?,
        amounts?.join("/")
    ))
}

/// `@TIME:KIND:TRANSFER`.
pub(crate) fn change_word(event: &Record) -> Result<String, String> {
    let kind = usize::try_from(event.get("kind")?).or(Err("no kind"))?;
    let kind = KINDS.get(kind).ok_or("no kind")?;
    let (time, id) = (event.get("timestamp")?, event.get("transfer_id")?);
    Ok(format!("@{time}:{kind}:T{id}"))
}

/// Compares words; the time of a word that begins with `@` may be a sum.
pub(crate) fn compare(row: &Row<'_>, found: &[String]) -> Result<(), String> {
    let mut expected = Vec::new();
    for word in row.expected.iter().filter(|word| **word != "none") {
        expected.push(match word.strip_prefix('@') {
            Some(rest) => {
                let (time, tail) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
                format!("@{}{tail}", number(time)?)
            }
            None => (*word).into(),
        });
    }
    if row.expected.is_empty() {
        return Err("a query needs what it finds, or none".into());
    }
    if expected != found {
        let (expected, found) = (expected.join(" "), found.join(" "));
        return Err(format!("expected {expected}, got {found}"));
    }
    Ok(())
}
