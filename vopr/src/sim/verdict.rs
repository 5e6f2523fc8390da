//! What a check finds.

/// What went wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The invariant, or `panic`, `liveness`, `fatal`, `nondeterminism`.
    pub kind: &'static str,
    /// What was seen.
    pub what: String,
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
