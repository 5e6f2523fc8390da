//! What a transfer, or its expiry, does to its two accounts.

use super::account_cache::AccountCache;
use zerocopy::little_endian::U16;

/// Checked to neither overflow nor underflow a balance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    /// Slots of the debit and the credit account, which are different.
    pub(super) slots: (u32, u32),
    /// Taken off what is pending.
    pub(super) released: u128,
    /// Added to what is pending.
    pub(super) held: u128,
    /// Added to what is posted.
    pub(super) posted: u128,
    /// The accounts' flags afterwards.
    pub(super) debit_flags: U16,
    pub(super) credit_flags: U16,
}

impl Effect {
    /// Changes the accounts where they are.
    #[inline]
    pub(super) fn apply(&self, accounts: &mut AccountCache) {
        let debit = accounts.get_mut(self.slots.0);
        debit.debits_pending = (debit.debits_pending.get() - self.released + self.held).into();
        debit.debits_posted = (debit.debits_posted.get() + self.posted).into();
        debit.flags = self.debit_flags;
        let credit = accounts.get_mut(self.slots.1);
        credit.credits_pending = (credit.credits_pending.get() - self.released + self.held).into();
        credit.credits_posted = (credit.credits_posted.get() + self.posted).into();
        credit.flags = self.credit_flags;
    }
}
