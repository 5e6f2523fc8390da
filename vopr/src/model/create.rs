//! What `create_accounts` and `create_transfers` share: chains, imports, results.

use super::layout::{Account, CreateResult, Layout, SparseResult, Transfer};
use super::status::{account as account_status, transfer as transfer_status};
use super::{Model, Refused, TIMESTAMP_MAX, flags, refuse_if};

/// The statuses that both operations have, each with its own code.
pub(super) struct Codes {
    created: u32,
    linked_event_failed: u32,
    linked_event_chain_open: u32,
    imported_event_expected: u32,
    imported_event_not_expected: u32,
    imported_event_timestamp_out_of_range: u32,
    imported_event_timestamp_must_not_advance: u32,
    timestamp_must_be_zero: u32,
}

macro_rules! codes {
    ($from:ident) => {
        Codes {
            created: $from::CREATED,
            linked_event_failed: $from::LINKED_EVENT_FAILED,
            linked_event_chain_open: $from::LINKED_EVENT_CHAIN_OPEN,
            imported_event_expected: $from::IMPORTED_EVENT_EXPECTED,
            imported_event_not_expected: $from::IMPORTED_EVENT_NOT_EXPECTED,
            imported_event_timestamp_out_of_range: $from::IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE,
            imported_event_timestamp_must_not_advance:
                $from::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE,
            timestamp_must_be_zero: $from::TIMESTAMP_MUST_BE_ZERO,
        }
    };
}

/// An account or a transfer that is to be created.
pub(super) trait Event: Layout + Copy {
    const CODES: Codes;
    fn linked(&self) -> bool;
    fn imported(&self) -> bool;
    fn timestamp(&self) -> u64;
    /// Creates it, and gives the timestamp that it has.
    fn create(self, model: &mut Model, timestamp: u64) -> Result<u64, Refused>;
    /// It failed with that status.
    fn failed(&self, model: &mut Model, status: u32);
}

impl Event for Account {
    const CODES: Codes = codes!(account_status);

    fn linked(&self) -> bool {
        self.flags & flags::account::LINKED != 0
    }

    fn imported(&self) -> bool {
        self.flags & flags::account::IMPORTED != 0
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn create(self, model: &mut Model, timestamp: u64) -> Result<u64, Refused> {
        model.create_account(self, timestamp)
    }

    fn failed(&self, _model: &mut Model, _status: u32) {}
}

impl Event for Transfer {
    const CODES: Codes = codes!(transfer_status);

    fn linked(&self) -> bool {
        self.flags & flags::transfer::LINKED != 0
    }

    fn imported(&self) -> bool {
        self.flags & flags::transfer::IMPORTED != 0
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn create(self, model: &mut Model, timestamp: u64) -> Result<u64, Refused> {
        model.create_transfer(self, timestamp)
    }

    fn failed(&self, model: &mut Model, status: u32) {
        let burns = matches!(
            status,
            transfer_status::DEBIT_ACCOUNT_NOT_FOUND
                | transfer_status::CREDIT_ACCOUNT_NOT_FOUND
                | transfer_status::PENDING_TRANSFER_NOT_FOUND
                | transfer_status::EXCEEDS_CREDITS
                | transfer_status::EXCEEDS_DEBITS
                | transfer_status::DEBIT_ACCOUNT_ALREADY_CLOSED
                | transfer_status::CREDIT_ACCOUNT_ALREADY_CLOSED
        );
        if burns {
            model.burnt.insert(self.id);
        }
    }
}

/// Executes one batch of events; `timestamp` is that of the last.
pub(super) fn create<E: Event>(
    model: &mut Model,
    timestamp: u64,
    batch: &[u8],
    sparse: bool,
    out: &mut Vec<u8>,
) {
    let events: Vec<E> = batch.chunks(E::SIZE).map(E::decode).collect();
    let mut results: Vec<CreateResult> = Vec::with_capacity(events.len());
    let imports = events.first().is_some_and(Event::imported);
    let mut chain: Option<usize> = None;
    let mut broken = false;
    let before = timestamp - u64::try_from(events.len()).expect("few events");
    for (event_timestamp, (index, event)) in (before + 1..).zip(events.iter().enumerate()) {
        if event.linked() && chain.is_none() {
            chain = Some(index);
            model.undo = Some(Vec::new());
        }
        let open = event.linked() && index + 1 == events.len();
        let outcome = check_event(event, open, broken, imports, timestamp)
            .and_then(|()| event.create(model, event_timestamp));
        let (status, at) = match outcome {
            Ok(at) => (E::CODES.created, at),
            Err(refused) => (refused.status, refused.timestamp.unwrap_or(event_timestamp)),
        };
        results.push(CreateResult {
            timestamp: at,
            status,
            reserved: 0,
        });
        if outcome.is_err() {
            if let Some(start) = chain.filter(|_| !broken) {
                broken = true;
                model.roll_back();
                for result in &mut results[start..index] {
                    result.status = E::CODES.linked_event_failed;
                }
            }
            event.failed(model, status);
        }
        if chain.is_some() && (!event.linked() || open) {
            chain = None;
            broken = false;
            model.undo = None;
        }
    }
    for (index, result) in (0..).zip(&results) {
        if !sparse {
            result.encode(out);
        } else if result.status != E::CODES.created {
            SparseResult {
                index,
                status: result.status,
            }
            .encode(out);
        }
    }
}

/// The checks that come before all others.
fn check_event<E: Event>(
    event: &E,
    open: bool,
    broken: bool,
    imports: bool,
    batch_timestamp: u64,
) -> Result<(), Refused> {
    let imported = event.imported();
    let given = event.timestamp();
    refuse_if(open, E::CODES.linked_event_chain_open)?;
    refuse_if(broken, E::CODES.linked_event_failed)?;
    refuse_if(imports && !imported, E::CODES.imported_event_expected)?;
    refuse_if(imported && !imports, E::CODES.imported_event_not_expected)?;
    if imported {
        let in_range = (1..=TIMESTAMP_MAX).contains(&given);
        refuse_if(!in_range, E::CODES.imported_event_timestamp_out_of_range)?;
        let advances = given >= batch_timestamp;
        refuse_if(advances, E::CODES.imported_event_timestamp_must_not_advance)
    } else {
        refuse_if(given != 0, E::CODES.timestamp_must_be_zero)
    }
}
