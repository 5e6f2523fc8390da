//! Counts with names: how runs are added up and printed.

use std::fmt;

/// A count and its name.
pub type Field<'a> = (&'static str, &'a mut u64);

/// Adds the counts of another run.
pub fn add<'a>(
    sums: impl IntoIterator<Item = Field<'a>>,
    values: impl IntoIterator<Item = Field<'a>>,
) {
    for ((_, sum), (_, value)) in sums.into_iter().zip(values) {
        *sum += *value;
    }
}

/// Prints the counts.
///
/// # Errors
/// When that cannot be done.
pub fn write<'a>(
    f: &mut fmt::Formatter<'_>,
    fields: impl IntoIterator<Item = Field<'a>>,
) -> fmt::Result {
    for (index, (name, value)) in fields.into_iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{name} {value}")?;
    }
    Ok(())
}
