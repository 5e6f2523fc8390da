//! Filters: every subset of predicates, mostly with values that something has.

use super::Generator;
use crate::model::flags::{account_filter, query_filter};
use crate::model::layout::{AccountFilter, ChangeEventsFilter, Layout, QueryFilter};

/// The fields that a filter names; 0 asks for nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    user_data_128: u128,
    user_data_64: u64,
    user_data_32: u32,
    ledger: u32,
    code: u16,
    /// An account of the record that they are of; 0 if they are of none.
    account: u128,
}

/// Subsets of the fields.
const SUBSETS: u64 = 32;
/// Records that are looked at for one that has all the fields of a subset.
const RECORDS: usize = 12;

impl Generator {
    /// Any subset of the fields: mostly as some record has them, otherwise each a value that many or
    /// none have.
    fn wanted_fields(&mut self) -> Wanted {
        let subset = self.random.below(SUBSETS);
        let known = if self.random.percent(60) {
            self.known_fields(subset)
        } else {
            None
        };
        let fields = known.unwrap_or_else(|| Wanted {
            user_data_128: self.random.pick(&[1, 1, 1 << 64, u128::MAX, 2, 3 << 64]),
            user_data_64: self.random.pick(&[1, 1, 1 << 32, u64::MAX, 2, 3 << 60]),
            user_data_32: self.random.pick(&[1, 1, 2, u32::MAX, 3]),
            ledger: self.random.between_32(1, self.swarm.ledgers + 1),
            code: self.random.pick(&[1, 1, 2, u16::MAX, 3]),
            account: 0,
        });
        let asks = |bit: u32| subset >> bit & 1 == 1;
        Wanted {
            user_data_128: if asks(0) { fields.user_data_128 } else { 0 },
            user_data_64: if asks(1) { fields.user_data_64 } else { 0 },
            user_data_32: if asks(2) { fields.user_data_32 } else { 0 },
            ledger: if asks(3) { fields.ledger } else { 0 },
            code: if asks(4) { fields.code } else { 0 },
            account: fields.account,
        }
    }

    /// The fields of a transfer or an account that was sent and has something in all of a subset.
    fn known_fields(&mut self, subset: u64) -> Option<Wanted> {
        for _ in 0..RECORDS {
            let fields = if self.random.percent(50) {
                let transfer = self.memory.a_transfer(&mut self.random)?;
                Wanted {
                    user_data_128: transfer.user_data_128,
                    user_data_64: transfer.user_data_64,
                    user_data_32: transfer.user_data_32,
                    ledger: transfer.ledger,
                    code: transfer.code,
                    account: transfer.debit_account_id,
                }
            } else {
                let account = self.memory.an_account(&mut self.random)?;
                Wanted {
                    user_data_128: account.user_data_128,
                    user_data_64: account.user_data_64,
                    user_data_32: account.user_data_32,
                    ledger: account.ledger,
                    code: account.code,
                    account: account.id,
                }
            };
            let has = [
                fields.user_data_128 != 0,
                fields.user_data_64 != 0,
                fields.user_data_32 != 0,
                fields.ledger != 0,
                fields.code != 0,
            ];
            let lacks = |(bit, has): (u32, bool)| subset >> bit & 1 == 1 && !has;
            if !(0..).zip(has).any(lacks) {
                return Some(fields);
            }
        }
        None
    }

    /// Several filters of a request share a reply: they may not ask for more than fits.
    fn limit(&mut self, one_of_many: bool) -> u32 {
        if one_of_many {
            self.random.pick(&[0, 1, 2, 10, 1000])
        } else {
            self.random
                .pick(&[0, 1, 2, 10, 1000, 2730, 8188, 8189, 8190, u32::MAX])
        }
    }

    /// Bounds: open, known timestamps, or reversed and so invalid.
    fn bounds(&mut self) -> (u64, u64) {
        let mut low = 0;
        let mut high = 0;
        if self.random.percent(40) {
            low = self.memory.timestamp(&mut self.random);
        }
        if self.random.percent(40) {
            high = self.memory.timestamp(&mut self.random);
        }
        match self.random.below(20) {
            0 => high = low,
            1 => {}
            _ if high != 0 && low > high => (low, high) = (high, low),
            _ => {}
        }
        (low, high)
    }

    pub(super) fn account_filter(&mut self, one_of_many: bool) -> AccountFilter {
        let (timestamp_min, timestamp_max) = self.bounds();
        let mut filter = AccountFilter {
            account_id: self.any_account_id(),
            timestamp_min,
            timestamp_max,
            limit: self.limit(one_of_many),
            flags: self.random.pick(&[0, 1, 2, 3, 3, 3])
                | self.random.pick(&[0, account_filter::REVERSED]),
            ..AccountFilter::zeroed()
        };
        let fields = self.wanted_fields();
        filter.user_data_128 = fields.user_data_128;
        filter.user_data_64 = fields.user_data_64;
        filter.user_data_32 = fields.user_data_32;
        filter.code = fields.code;
        if fields.account != 0 && self.random.percent(50) {
            filter.account_id = fields.account;
        }
        match self.random.below(40) {
            0 => filter.reserved[self.random.index(58)] = 1,
            1 => filter.flags |= self.random.pick(&[8, 1 << 31]),
            _ => {}
        }
        filter
    }

    pub(super) fn query_filter(&mut self, one_of_many: bool) -> QueryFilter {
        let (timestamp_min, timestamp_max) = self.bounds();
        let mut filter = QueryFilter {
            timestamp_min,
            timestamp_max,
            limit: self.limit(one_of_many),
            flags: self.random.pick(&[0, query_filter::REVERSED]),
            ..QueryFilter::zeroed()
        };
        let fields = self.wanted_fields();
        filter.user_data_128 = fields.user_data_128;
        filter.user_data_64 = fields.user_data_64;
        filter.user_data_32 = fields.user_data_32;
        filter.ledger = fields.ledger;
        filter.code = fields.code;
        match self.random.below(40) {
            0 => filter.reserved[self.random.index(6)] = 1,
            1 => filter.flags |= self.random.pick(&[2, 1 << 31]),
            _ => {}
        }
        filter
    }

    pub(super) fn change_events_filter(&mut self) -> ChangeEventsFilter {
        let (timestamp_min, timestamp_max) = self.bounds();
        let mut filter = ChangeEventsFilter {
            timestamp_min,
            timestamp_max,
            limit: self.limit(false),
            ..ChangeEventsFilter::zeroed()
        };
        if self.random.percent(3) {
            filter.reserved[self.random.index(44)] = 1;
        }
        filter
    }
}
