#!/usr/bin/env python3
"""The official Python client against a running server: smoke.py ADDRESS.

Runs with every client from 0.16 on. The results of creates differ: up to 0.16 there is one for each
event that failed, from 0.17 on there is one for each event.
"""

import inspect
import sys

import tigerbeetle as tb

SPARSE = hasattr(tb, "CreateTransfersResult")
LEDGER = 700


def make(of, **fields):
    """An instance with every field zero that is not named."""
    for name in inspect.signature(of).parameters:
        if name == "flags":
            flags = sys.modules[of.__module__].__dict__.get(of.__name__ + "Flags")
            fields.setdefault(name, flags.NONE)
        else:
            fields.setdefault(name, 0)
    return of(**fields)


def statuses(results, count):
    """The name of the status of each event."""
    if not SPARSE:
        return [result.status.name.lower() for result in results]
    names = ["created"] * count
    for result in results:
        names[result.index] = result.result.name.lower()
    return names


def same(actual, expected):
    assert actual == expected, f"expected {expected}, got {actual}"


def create(call, events, expected):
    same(statuses(call(events), len(events)), expected)


def transfer(id, debit, credit, amount, **more):
    return make(
        tb.Transfer,
        id=id,
        debit_account_id=debit,
        credit_account_id=credit,
        amount=amount,
        ledger=LEDGER,
        code=1,
        **more,
    )


def balances(client, id):
    (account,) = client.lookup_accounts([id])
    return (
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
    )


def run(client):
    a, b, limited = tb.id(), tb.id(), tb.id()
    accounts = [
        make(tb.Account, id=a, ledger=LEDGER, code=10, flags=tb.AccountFlags.HISTORY),
        make(tb.Account, id=b, ledger=LEDGER, code=10),
        make(
            tb.Account,
            id=limited,
            ledger=LEDGER,
            code=10,
            flags=tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS,
        ),
    ]
    create(client.create_accounts, accounts, ["created"] * 3)
    create(client.create_accounts, accounts[:1], ["exists"])
    same([account.id for account in client.lookup_accounts([b, tb.id(), a])], [b, a])

    # Plain, again, refused.
    first = transfer(tb.id(), a, b, 100, user_data_64=7)
    create(client.create_transfers, [first], ["created"])
    create(
        client.create_transfers,
        [first, transfer(tb.id(), limited, b, 1), transfer(tb.id(), a, tb.id(), 1)],
        ["exists", "exceeds_credits", "credit_account_not_found"],
    )
    same(balances(client, a), (0, 100, 0, 0))

    # Two phases, and a chain that fails as one.
    flags = tb.TransferFlags
    held, freed = tb.id(), tb.id()
    create(
        client.create_transfers,
        [
            transfer(held, a, b, 50, flags=flags.PENDING, timeout=3600),
            transfer(freed, a, b, 30, flags=flags.PENDING),
        ],
        ["created"] * 2,
    )
    same(balances(client, b), (0, 0, 80, 100))
    create(
        client.create_transfers,
        [
            make(
                tb.Transfer,
                id=tb.id(),
                pending_id=held,
                amount=20,
                flags=flags.POST_PENDING_TRANSFER,
            ),
            make(tb.Transfer, id=tb.id(), pending_id=freed, flags=flags.VOID_PENDING_TRANSFER),
        ],
        ["created"] * 2,
    )
    same(balances(client, b), (0, 0, 0, 120))
    create(
        client.create_transfers,
        [
            transfer(tb.id(), a, b, 1, flags=flags.LINKED),
            transfer(tb.id(), limited, b, 1),
        ],
        ["linked_event_failed", "exceeds_credits"],
    )
    same(balances(client, b), (0, 0, 0, 120))

    # A large batch.
    batch = [transfer(tb.id(), b, a, 1) for _ in range(8000)]
    create(client.create_transfers, batch, ["created"] * 8000)
    found = client.lookup_transfers([t.id for t in batch])
    same([t.id for t in found], [t.id for t in batch])

    # Queries.
    both = tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS
    found = client.get_account_transfers(
        make(tb.AccountFilter, account_id=a, limit=10, flags=both)
    )
    same(len(found), 10)
    same(found[0].id, first.id)
    last = client.get_account_balances(
        make(
            tb.AccountFilter,
            account_id=a,
            limit=1,
            flags=both | tb.AccountFilterFlags.REVERSED,
        )
    )
    same([(x.debits_posted, x.credits_posted) for x in last], [(120, 8000)])
    found = client.query_transfers(make(tb.QueryFilter, user_data_64=7, limit=10))
    assert first.id in [t.id for t in found], found
    found = client.query_accounts(make(tb.QueryFilter, ledger=LEDGER, code=10, limit=8000))
    assert {a, b, limited} <= {x.id for x in found}, found


if __name__ == "__main__":
    with tb.ClientSync(cluster_id=0, replica_addresses=sys.argv[1]) as client:
        run(client)
    print("ok: accounts, transfers, two phases, chains, batches, queries")
