//! The operations: their codes, the sizes of their events and results, and how their bodies are cut.

use super::multi_batch::Batches;
use super::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, RegisterRequest, RegisterResult, SparseResult, Transfer,
};
use crate::constants::{BATCH_EVENTS_MAX, CHANGE_EVENTS_MAX};
use crate::stdx::to_u64;

/// Bytes of an id, the event of a lookup.
const ID_SIZE: usize = 16;

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $code:literal $name:literal,)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Operation {
            $($(#[$doc])* $variant = $code,)*
        }

        impl Operation {
            /// All of them, by code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The operation of that code, if there is one; [`Self::Pulse`] included.
            #[must_use]
            pub const fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The code on the wire.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The name that the documentation of the protocol uses.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    /// Opens a session.
    Register = 2 "register",
    /// Expires pending transfers. The primary makes it; no client may send it.
    Pulse = 128 "pulse",
    /// Without trailer; results of failures only.
    CreateAccountsUnbatched = 129 "deprecated_create_accounts_unbatched",
    /// Without trailer; results of failures only.
    CreateTransfersUnbatched = 130 "deprecated_create_transfers_unbatched",
    /// Without trailer.
    LookupAccountsUnbatched = 131 "deprecated_lookup_accounts_unbatched",
    /// Without trailer.
    LookupTransfersUnbatched = 132 "deprecated_lookup_transfers_unbatched",
    /// Without trailer.
    GetAccountTransfersUnbatched = 133 "deprecated_get_account_transfers_unbatched",
    /// Without trailer.
    GetAccountBalancesUnbatched = 134 "deprecated_get_account_balances_unbatched",
    /// Without trailer.
    QueryAccountsUnbatched = 135 "deprecated_query_accounts_unbatched",
    /// Without trailer.
    QueryTransfersUnbatched = 136 "deprecated_query_transfers_unbatched",
    /// What happened, in the order of time; without trailer.
    GetChangeEvents = 137 "get_change_events",
    /// Of clients before 0.17.0: results of failures only.
    CreateAccountsSparse = 138 "deprecated_create_accounts_sparse",
    /// Of clients before 0.17.0: results of failures only.
    CreateTransfersSparse = 139 "deprecated_create_transfers_sparse",
    /// Accounts by id.
    LookupAccounts = 140 "lookup_accounts",
    /// Transfers by id.
    LookupTransfers = 141 "lookup_transfers",
    /// Transfers of an account.
    GetAccountTransfers = 142 "get_account_transfers",
    /// Balances of an account after each of its transfers.
    GetAccountBalances = 143 "get_account_balances",
    /// Accounts by their fields.
    QueryAccounts = 144 "query_accounts",
    /// Transfers by their fields.
    QueryTransfers = 145 "query_transfers",
    /// Creates accounts.
    CreateAccounts = 146 "create_accounts",
    /// Creates transfers.
    CreateTransfers = 147 "create_transfers",
}

/// What operations of one family share, whatever the age of the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// Opens a session.
    Register,
    /// Expires pending transfers.
    Pulse,
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

impl Operation {
    /// What it does, whatever the encoding of its bodies.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Register => Family::Register,
            Self::Pulse => Family::Pulse,
            Self::CreateAccountsUnbatched | Self::CreateAccountsSparse | Self::CreateAccounts => {
                Family::CreateAccounts
            }
            Self::CreateTransfersUnbatched
            | Self::CreateTransfersSparse
            | Self::CreateTransfers => Family::CreateTransfers,
            Self::LookupAccountsUnbatched | Self::LookupAccounts => Family::LookupAccounts,
            Self::LookupTransfersUnbatched | Self::LookupTransfers => Family::LookupTransfers,
            Self::GetAccountTransfersUnbatched | Self::GetAccountTransfers => {
                Family::GetAccountTransfers
            }
            Self::GetAccountBalancesUnbatched | Self::GetAccountBalances => {
                Family::GetAccountBalances
            }
            Self::QueryAccountsUnbatched | Self::QueryAccounts => Family::QueryAccounts,
            Self::QueryTransfersUnbatched | Self::QueryTransfers => Family::QueryTransfers,
            Self::GetChangeEvents => Family::GetChangeEvents,
        }
    }

    /// Bytes of an event of a request; 0 for a pulse, which has none.
    #[must_use]
    pub const fn event_size(self) -> usize {
        match self.family() {
            Family::Register => size_of::<RegisterRequest>(),
            Family::Pulse => 0,
            Family::CreateAccounts => size_of::<Account>(),
            Family::CreateTransfers => size_of::<Transfer>(),
            Family::LookupAccounts | Family::LookupTransfers => ID_SIZE,
            Family::GetAccountTransfers | Family::GetAccountBalances => size_of::<AccountFilter>(),
            Family::QueryAccounts | Family::QueryTransfers => size_of::<QueryFilter>(),
            Family::GetChangeEvents => size_of::<ChangeEventsFilter>(),
        }
    }

    /// Bytes of a result in a reply; 0 for a pulse, which has none.
    #[must_use]
    pub const fn result_size(self) -> usize {
        match self.family() {
            Family::Register => size_of::<RegisterResult>(),
            Family::Pulse => 0,
            Family::CreateAccounts | Family::CreateTransfers if self.is_sparse() => {
                size_of::<SparseResult>()
            }
            Family::CreateAccounts | Family::CreateTransfers => size_of::<CreateResult>(),
            Family::LookupAccounts | Family::QueryAccounts => size_of::<Account>(),
            Family::LookupTransfers | Family::QueryTransfers | Family::GetAccountTransfers => {
                size_of::<Transfer>()
            }
            Family::GetAccountBalances => size_of::<AccountBalance>(),
            Family::GetChangeEvents => size_of::<ChangeEvent>(),
        }
    }

    /// Whether bodies end with a trailer that cuts them into batches.
    #[must_use]
    pub const fn is_multi_batch(self) -> bool {
        self.code() >= Self::CreateAccountsSparse.code()
    }

    /// Whether it creates accounts or transfers.
    #[must_use]
    pub const fn is_create(self) -> bool {
        matches!(
            self.family(),
            Family::CreateAccounts | Family::CreateTransfers
        )
    }

    /// Whether it is a create whose reply has the failures only, by index.
    #[must_use]
    pub const fn is_sparse(self) -> bool {
        matches!(
            self,
            Self::CreateAccountsUnbatched
                | Self::CreateTransfersUnbatched
                | Self::CreateAccountsSparse
                | Self::CreateTransfersSparse
        )
    }

    /// Whether its events are ids.
    #[must_use]
    pub const fn is_lookup(self) -> bool {
        matches!(
            self.family(),
            Family::LookupAccounts | Family::LookupTransfers
        )
    }

    /// Whether each batch is exactly one filter.
    #[must_use]
    pub const fn is_query(self) -> bool {
        match self.family() {
            Family::GetAccountTransfers
            | Family::GetAccountBalances
            | Family::QueryAccounts
            | Family::QueryTransfers
            | Family::GetChangeEvents => true,
            Family::Register
            | Family::Pulse
            | Family::CreateAccounts
            | Family::CreateTransfers
            | Family::LookupAccounts
            | Family::LookupTransfers => false,
        }
    }

    /// Whether it leaves the ledger as it is.
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.is_lookup() || self.is_query()
    }

    /// A limit of a filter that a client asked for, cut to what one reply can hold.
    #[must_use]
    pub const fn limit_capped(self, limit: u32) -> u32 {
        let most = match self.family() {
            Family::GetChangeEvents => CHANGE_EVENTS_MAX,
            Family::Register
            | Family::Pulse
            | Family::CreateAccounts
            | Family::CreateTransfers
            | Family::LookupAccounts
            | Family::LookupTransfers
            | Family::GetAccountTransfers
            | Family::GetAccountBalances
            | Family::QueryAccounts
            | Family::QueryTransfers => BATCH_EVENTS_MAX,
        };
        if limit < most { limit } else { most }
    }

    /// The batches of a request body that was found valid; all of it when there is no trailer.
    #[must_use]
    pub fn batches(self, body: &[u8]) -> Batches<'_> {
        if self.is_multi_batch() {
            Batches::decode(self.event_size(), body).expect("the body was found valid")
        } else {
            Batches::whole(body)
        }
    }

    /// How far a request with this valid body moves the timestamp: the events of a create over all
    /// of its batches, and 0 for everything else.
    #[must_use]
    pub fn event_count(self, body: &[u8]) -> u64 {
        if self.is_create() {
            to_u64(self.batches(body).payload().len() / self.event_size())
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Operation;
    use crate::wire::multi_batch::encode;

    #[test]
    fn codes_come_back() {
        let known = (0..=u8::MAX).filter_map(Operation::from_u8);
        assert!(known.eq(Operation::ALL.iter().copied()));
        for operation in Operation::ALL {
            assert_eq!(Operation::from_u8(operation.code()), Some(*operation));
        }
        assert_eq!(Operation::ALL.len(), 21);
    }

    #[test]
    fn sizes_are_those_of_the_protocol() {
        let sizes = |operation: Operation| (operation.event_size(), operation.result_size());
        assert_eq!(sizes(Operation::Register), (256, 64));
        assert_eq!(sizes(Operation::CreateAccounts), (128, 16));
        assert_eq!(sizes(Operation::CreateTransfersSparse), (128, 8));
        assert_eq!(sizes(Operation::CreateAccountsUnbatched), (128, 8));
        assert_eq!(sizes(Operation::LookupTransfers), (16, 128));
        assert_eq!(sizes(Operation::GetAccountBalances), (128, 128));
        assert_eq!(sizes(Operation::QueryAccounts), (64, 128));
        assert_eq!(sizes(Operation::GetChangeEvents), (64, 384));
    }

    #[test]
    fn the_events_of_all_batches_count() {
        let body = encode(128, &[&[0; 256], &[], &[0; 128]]);
        assert_eq!(Operation::CreateTransfers.event_count(&body), 3);
        assert_eq!(
            Operation::CreateTransfersUnbatched.event_count(&[0; 512]),
            4
        );
        assert_eq!(
            Operation::LookupAccounts.event_count(&encode(16, &[&[0; 32]])),
            0
        );
        assert_eq!(Operation::Register.event_count(&[0; 256]), 0);
    }
}
