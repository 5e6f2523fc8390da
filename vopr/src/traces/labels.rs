//! Symbolic timestamps: which value a label stands for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

/// Labels and values, one to one and in the same order.
#[derive(Debug, Default)]
pub(super) struct Labels {
    values: BTreeMap<u64, u64>,
    labels: BTreeMap<u64, u64>,
}

impl Labels {
    /// The label stands for that value, from now on if not before.
    pub(super) fn bind(&mut self, label: u64, value: u64) -> Result<(), String> {
        if let Some(&known) = self.values.get(&label) {
            if known == value {
                return Ok(());
            }
            return Err(format!("t{label} is {known}, got {value}"));
        }
        if value == 0 || value > TIMESTAMP_MAX {
            return Err(format!("t{label}: {value} is no timestamp"));
        }
        if let Some(other) = self.labels.get(&value) {
            return Err(format!("t{label}: got {value}, which is t{other} already"));
        }
        if let Some((other, &before)) = self.values.range(..label).next_back()
            && before > value
        {
            return Err(format!(
                "t{label}: got {value}, which is not after t{other} = {before}"
            ));
        }
        if let Some((other, &after)) = self.values.range(label..).next()
            && after < value
        {
            return Err(format!(
                "t{label}: got {value}, which is not before t{other} = {after}"
            ));
        }
        self.values.insert(label, value);
        self.labels.insert(value, label);
        Ok(())
    }

    /// Whether the label has a value.
    pub(super) fn knows(&self, label: &Map<String, Value>) -> bool {
        label
            .get("t")
            .and_then(Value::as_u64)
            .is_some_and(|t| self.values.contains_key(&t))
    }

    /// The value of `{"t": label, "d": delta}`.
    pub(super) fn resolve(&self, label: &Map<String, Value>) -> Result<u64, String> {
        let t = label.get("t").and_then(Value::as_u64).ok_or("no label")?;
        let value = self
            .values
            .get(&t)
            .ok_or_else(|| format!("t{t} is not known"))?;
        let delta = label
            .get("d")
            .map_or(Some(0), Value::as_i64)
            .ok_or("no delta")?;
        value
            .checked_add_signed(delta)
            .ok_or_else(|| format!("t{t}{delta:+} is out of range"))
    }
}
