//! Operations, and bodies that hold several batches: the elements, then 0xFF up to a whole element,
//! the numbers of elements in reverse order, and the number of batches (all of them `u16`).

use super::layout::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult, Id,
    Layout, QueryFilter, SparseResult, Transfer,
};

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Creates accounts.
    CreateAccounts,
    /// Creates transfers.
    CreateTransfers,
    /// Accounts by id.
    LookupAccounts,
    /// Transfers by id.
    LookupTransfers,
    /// Transfers of an account.
    GetAccountTransfers,
    /// Balances of an account.
    GetAccountBalances,
    /// Accounts by their fields.
    QueryAccounts,
    /// Transfers by their fields.
    QueryTransfers,
    /// What happened.
    GetChangeEvents,
}

/// An operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// Whether bodies have trailers.
    pub multi_batch: bool,
    /// Whether a create answers with failures only.
    pub sparse: bool,
}

impl Op {
    /// The operation of that code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let op = |kind, multi_batch, sparse| {
            Some(Self {
                kind,
                multi_batch,
                sparse,
            })
        };
        match code {
            129 => op(Kind::CreateAccounts, false, true),
            130 => op(Kind::CreateTransfers, false, true),
            131 => op(Kind::LookupAccounts, false, false),
            132 => op(Kind::LookupTransfers, false, false),
            133 => op(Kind::GetAccountTransfers, false, false),
            134 => op(Kind::GetAccountBalances, false, false),
            135 => op(Kind::QueryAccounts, false, false),
            136 => op(Kind::QueryTransfers, false, false),
            137 => op(Kind::GetChangeEvents, false, false),
            138 => op(Kind::CreateAccounts, true, true),
            139 => op(Kind::CreateTransfers, true, true),
            140 => op(Kind::LookupAccounts, true, false),
            141 => op(Kind::LookupTransfers, true, false),
            142 => op(Kind::GetAccountTransfers, true, false),
            143 => op(Kind::GetAccountBalances, true, false),
            144 => op(Kind::QueryAccounts, true, false),
            145 => op(Kind::QueryTransfers, true, false),
            146 => op(Kind::CreateAccounts, true, false),
            147 => op(Kind::CreateTransfers, true, false),
            _ => None,
        }
    }

    /// Whether it creates something.
    #[must_use]
    pub fn creates(self) -> bool {
        matches!(self.kind, Kind::CreateAccounts | Kind::CreateTransfers)
    }

    /// Whether a batch is one filter.
    #[must_use]
    pub fn queries(self) -> bool {
        !self.creates() && !matches!(self.kind, Kind::LookupAccounts | Kind::LookupTransfers)
    }

    /// Bytes of an event.
    #[must_use]
    pub fn event_size(self) -> usize {
        match self.kind {
            Kind::CreateAccounts => Account::SIZE,
            Kind::CreateTransfers => Transfer::SIZE,
            Kind::LookupAccounts | Kind::LookupTransfers => Id::SIZE,
            Kind::GetAccountTransfers | Kind::GetAccountBalances => AccountFilter::SIZE,
            Kind::QueryAccounts | Kind::QueryTransfers => QueryFilter::SIZE,
            Kind::GetChangeEvents => ChangeEventsFilter::SIZE,
        }
    }

    /// Bytes of a result.
    #[must_use]
    pub fn result_size(self) -> usize {
        match self.kind {
            Kind::CreateAccounts | Kind::CreateTransfers if self.sparse => SparseResult::SIZE,
            Kind::CreateAccounts | Kind::CreateTransfers => CreateResult::SIZE,
            Kind::LookupAccounts | Kind::QueryAccounts => Account::SIZE,
            Kind::LookupTransfers | Kind::QueryTransfers | Kind::GetAccountTransfers => {
                Transfer::SIZE
            }
            Kind::GetAccountBalances => AccountBalance::SIZE,
            Kind::GetChangeEvents => ChangeEvent::SIZE,
        }
    }

    /// The most results of a filter.
    #[must_use]
    pub fn limit_max(self) -> usize {
        if self.kind == Kind::GetChangeEvents {
            2730
        } else {
            8189
        }
    }
}

/// Bytes of the trailer of that many batches.
#[must_use]
pub fn trailer_size(element_size: usize, batches: usize) -> usize {
    (2 * (batches + 1)).next_multiple_of(element_size)
}

/// A body of these batches, each the bytes of its elements.
#[must_use]
pub fn encode(element_size: usize, batches: &[Vec<u8>]) -> Vec<u8> {
    let small = |n: usize| u16::try_from(n).expect("few elements").to_le_bytes();
    let mut body = batches.concat();
    let padding = trailer_size(element_size, batches.len()) - 2 * (batches.len() + 1);
    body.resize(body.len() + padding, 0xFF);
    for batch in batches.iter().rev() {
        assert_eq!(batch.len() % element_size, 0);
        body.extend_from_slice(&small(batch.len() / element_size));
    }
    body.extend_from_slice(&small(batches.len()));
    body
}

/// The batches of a body; `None` when it is malformed.
#[must_use]
pub fn decode(element_size: usize, body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = body;
    let mut last = || {
        let (before, item) = rest.split_last_chunk::<2>()?;
        rest = before;
        Some(usize::from(u16::from_le_bytes(*item)))
    };
    let count = last()?;
    if count == 0 || count == usize::from(u16::MAX) {
        return None;
    }
    let sizes: Vec<usize> = (0..count).map(|_| last()).collect::<Option<_>>()?;
    let payload_size = body.len().checked_sub(trailer_size(element_size, count))?;
    let (mut payload, padding) = rest.split_at(payload_size);
    if padding.iter().any(|&byte| byte != 0xFF) {
        return None;
    }
    let mut batches = Vec::with_capacity(count);
    for size in sizes {
        let (batch, after) = payload.split_at_checked(size * element_size)?;
        batches.push(batch);
        payload = after;
    }
    payload.is_empty().then_some(batches)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn trailers_are_those_of_the_captured_frames() {
        let body = encode(8, &[vec![], vec![1; 16], vec![]]);
        assert_eq!(body[16..], [0, 0, 2, 0, 0, 0, 3, 0]);
        assert_eq!(decode(8, &body), Some(vec![&[][..], &[1; 16], &[]]));
        let empty = encode(16, &[vec![]]);
        assert_eq!(empty[..12], [0xFF; 12]);
        assert_eq!(empty[12..], [0, 0, 1, 0]);
    }

    #[test]
    fn malformed_bodies_are_found() {
        let good = encode(16, &[vec![7; 32], vec![8; 16]]);
        assert!(decode(16, &good).is_some());
        for (at, value) in [(48, 0), (58, 2), (60, 3), (62, 0), (62, 1), (62, 3)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(decode(16, &bad), None, "byte {at} is {value}");
        }
        assert_eq!(decode(16, &good[1..]), None);
        assert_eq!(decode(16, &[]), None);
        assert_eq!(decode(16, &[0xFF; 16]), None);
    }
}
