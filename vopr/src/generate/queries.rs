//! Filters: every subset of predicates, mostly with values that something has.

use super::Generator;
use crate::model::flags::{account_filter, query_filter};
use crate::model::layout::{AccountFilter, ChangeEventsFilter, Layout, QueryFilter};

impl Generator {
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
        if self.random.percent(25) {
            filter.user_data_128 = self.user_data_128();
        }
        if self.random.percent(25) {
            filter.user_data_64 = self.user_data_64();
        }
        if self.random.percent(25) {
            filter.user_data_32 = self.user_data();
        }
        if self.random.percent(25) {
            filter.code = self.random.pick(&[1, 2, 3, u16::MAX]);
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
        if self.random.percent(30) {
            filter.user_data_128 = self.user_data_128();
        }
        if self.random.percent(30) {
            filter.user_data_64 = self.user_data_64();
        }
        if self.random.percent(30) {
            filter.user_data_32 = self.user_data();
        }
        if self.random.percent(30) {
            filter.ledger = self.random.between_32(0, self.swarm.ledgers + 1);
        }
        if self.random.percent(30) {
            filter.code = self.random.pick(&[1, 2, 3, u16::MAX]);
        }
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
