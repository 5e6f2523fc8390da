//! What a check finds.

/// What went wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The invariant, or `panic`, `liveness`, `fatal`, `nondeterminism`.
    pub kind: &'static str,
    /// What was seen.
    pub what: String,
}

impl Failure {
    /// Whether another is of the same kind; panics are if they come from the same place.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let place = |failure: &Self| {
            // `panicked at src/file.rs:12:5: text`
            let start = failure.what.split(": ").next();
            start.unwrap_or_default().to_owned()
        };
        self.kind == other.kind && (self.kind != "panic" || place(self) == place(other))
    }
}

/// The verdict on one event.
pub type Verdict = Result<(), Failure>;

/// Fails with a kind and a sentence.
///
/// # Errors
/// Always.
pub fn fail<T>(kind: &'static str, what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure {
        kind,
        what: what.into(),
    })
}

/// Fails unless it holds.
///
/// # Errors
/// When it does not.
pub fn require(holds: bool, kind: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { fail(kind, what()) }
}
