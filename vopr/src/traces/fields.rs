//! Structs of traces to bytes and back, by the field tables of the layouts.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::labels::Labels;
use super::{json_name, status_name};
use crate::model::batch::{Kind, Op};
use crate::model::layout::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult, Id,
    Layout, QueryFilter, Transfer,
};

/// A struct of a trace; fields that are zero are left out.
pub(super) type Row = Map<String, Value>;
/// Names and sizes of fields.
pub(super) type Fields = &'static [(&'static str, usize)];

pub(super) fn fields_of_event(kind: Kind) -> Fields {
    match kind {
        Kind::CreateAccounts => Account::FIELDS,
        Kind::CreateTransfers => Transfer::FIELDS,
        Kind::LookupAccounts | Kind::LookupTransfers => Id::FIELDS,
        Kind::GetAccountTransfers | Kind::GetAccountBalances => AccountFilter::FIELDS,
        Kind::QueryAccounts | Kind::QueryTransfers => QueryFilter::FIELDS,
        Kind::GetChangeEvents => ChangeEventsFilter::FIELDS,
    }
}

pub(super) fn fields_of_result(kind: Kind) -> Fields {
    match kind {
        Kind::CreateAccounts | Kind::CreateTransfers => CreateResult::FIELDS,
        Kind::LookupAccounts | Kind::QueryAccounts => Account::FIELDS,
        Kind::LookupTransfers | Kind::QueryTransfers | Kind::GetAccountTransfers => {
            Transfer::FIELDS
        }
        Kind::GetAccountBalances => AccountBalance::FIELDS,
        Kind::GetChangeEvents => ChangeEvent::FIELDS,
    }
}

/// Fields of up to 16 bytes are integers, but for these: hexadecimal bytes.
fn is_bytes(name: &str, size: usize) -> bool {
    size > 16 || (name == "reserved" && size == 6)
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// Appends the bytes of an event.
pub(super) fn encode_row(
    fields: Fields,
    row: &Row,
    labels: &Labels,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if let Some(name) = row
        .keys()
        .find(|key| fields.iter().all(|(name, _)| name != key))
    {
        return Err(format!("unknown field {name}"));
    }
    for &(name, size) in fields {
        let wrong = || format!("{name}: {:?}", row.get(name));
        let mut bytes = match row.get(name) {
            None => vec![0; size],
            Some(Value::String(text)) if is_bytes(name, size) => {
                hexadecimal(text).ok_or_else(wrong)?
            }
            Some(Value::String(text)) => text
                .parse::<u128>()
                .map_err(|_| wrong())?
                .to_le_bytes()
                .to_vec(),
            Some(Value::Object(label)) if name.contains("timestamp") => {
                labels.resolve(label)?.to_le_bytes().to_vec()
            }
            Some(Value::Number(number)) => {
                number.as_u64().ok_or_else(wrong)?.to_le_bytes().to_vec()
            }
            Some(Value::Object(_) | Value::Null | Value::Bool(_) | Value::Array(_)) => {
                return Err(wrong());
            }
        };
        if bytes.len() > size && bytes[size..].iter().any(|&byte| byte != 0) {
            return Err(wrong());
        }
        bytes.resize(size, 0);
        out.append(&mut bytes);
    }
    Ok(())
}

/// The fields of all results of a reply, as text: decimal, hexadecimal for raw bytes, and the name
/// of the status.
pub(super) fn decode_rows(op: Op, reply: &[u8]) -> Option<Vec<BTreeMap<&'static str, String>>> {
    let chunks = reply.chunks_exact(op.result_size());
    if !chunks.remainder().is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    for chunk in chunks {
        let mut rest = chunk;
        let mut row = BTreeMap::new();
        for &(name, size) in fields_of_result(op.kind) {
            let (bytes, after) = rest.split_at(size);
            rest = after;
            row.insert(name, field_text(op, name, bytes));
        }
        rows.push(row);
    }
    Some(rows)
}

fn field_text(op: Op, name: &str, bytes: &[u8]) -> String {
    if is_bytes(name, bytes.len()) {
        if bytes.iter().all(|&byte| byte == 0) {
            return "0".to_owned();
        }
        return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let value = u128::from_le_bytes(wide);
    if name == "status"
        && let Some(status) = u32::try_from(value)
            .ok()
            .and_then(|s| status_name(op.kind, s))
    {
        return status;
    }
    value.to_string()
}

/// Compares a field of a result; a label is bound to what came.
pub(super) fn same(
    name: &str,
    want: Option<&Value>,
    got: &str,
    labels: &mut Labels,
) -> Result<(), String> {
    let differs = |want: &str| {
        if want == got {
            Ok(())
        } else {
            Err(format!("{}: expected {want}, got {got}", json_name(name)))
        }
    };
    match want {
        None => differs("0"),
        Some(Value::String(text)) => differs(text),
        Some(Value::Number(number)) => differs(&number.to_string()),
        Some(Value::Object(label)) => {
            if label.contains_key("d") {
                return differs(&labels.resolve(label)?.to_string());
            }
            let t = label.get("t").and_then(Value::as_u64).ok_or("no label")?;
            let value = got
                .parse()
                .map_err(|_| format!("{name}: {got} is no timestamp"))?;
            labels
                .bind(t, value)
                .map_err(|error| format!("{name}: {error}"))
        }
        Some(Value::Null | Value::Bool(_) | Value::Array(_)) => Err(format!("{name}: {want:?}")),
    }
}
