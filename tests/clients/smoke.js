// The official Node client against a running server: node smoke.js ADDRESS.
"use strict";

const assert = require("node:assert/strict");
const {
  createClient,
  id,
  AccountFilterFlags,
  AccountFlags,
  CreateAccountStatus,
  CreateTransferStatus,
  TransferFlags,
} = require("tigerbeetle-node");

const LEDGER = 701;

function account(fields) {
  return {
    id: id(),
    debits_pending: 0n,
    debits_posted: 0n,
    credits_pending: 0n,
    credits_posted: 0n,
    user_data_128: 0n,
    user_data_64: 0n,
    user_data_32: 0,
    reserved: 0,
    ledger: LEDGER,
    code: 10,
    flags: AccountFlags.none,
    timestamp: 0n,
    ...fields,
  };
}

function transfer(fields) {
  return {
    id: id(),
    debit_account_id: 0n,
    credit_account_id: 0n,
    amount: 0n,
    pending_id: 0n,
    user_data_128: 0n,
    user_data_64: 0n,
    user_data_32: 0,
    timeout: 0,
    ledger: LEDGER,
    code: 20,
    flags: TransferFlags.none,
    timestamp: 0n,
    ...fields,
  };
}

async function run(client) {
  const [a, b] = [account({ flags: AccountFlags.history }), account()];
  const statuses = (results) => results.map((result) => result.status);
  const created = CreateTransferStatus.created;
  assert.deepEqual(statuses(await client.createAccounts([a, b])), [
    CreateAccountStatus.created,
    CreateAccountStatus.created,
  ]);
  const between = { debit_account_id: a.id, credit_account_id: b.id };
  const plain = transfer({ ...between, amount: 100n });
  const pending = transfer({ ...between, amount: 50n, flags: TransferFlags.pending });
  assert.deepEqual(statuses(await client.createTransfers([plain, pending])), [created, created]);
  const post = transfer({
    pending_id: pending.id,
    amount: 20n,
    ledger: 0,
    code: 0,
    flags: TransferFlags.post_pending_transfer,
  });
  assert.deepEqual(statuses(await client.createTransfers([post, plain])), [
    created,
    CreateTransferStatus.exists,
  ]);
  const [found] = await client.lookupAccounts([b.id]);
  assert.equal(found.credits_posted, 120n);
  assert.equal(found.credits_pending, 0n);

  // Many requests at once: the client merges them.
  const requests = [];
  for (let index = 0; index < 50; index++) {
    const batch = Array.from({ length: 100 }, () =>
      transfer({ debit_account_id: b.id, credit_account_id: a.id, amount: 1n }),
    );
    requests.push(client.createTransfers(batch));
  }
  for (const results of await Promise.all(requests)) {
    assert.equal(results.length, 100);
    assert.ok(results.every((result) => result.status === created));
  }
  const filter = {
    account_id: a.id,
    user_data_128: 0n,
    user_data_64: 0n,
    user_data_32: 0,
    code: 0,
    timestamp_min: 0n,
    timestamp_max: 0n,
    limit: 8189,
    flags: AccountFilterFlags.debits | AccountFilterFlags.credits,
  };
  assert.equal((await client.getAccountTransfers(filter)).length, 5003);
  const balances = await client.getAccountBalances(filter);
  assert.equal(balances.at(-1).credits_posted, 5000n);
}

const client = createClient({ cluster_id: 0n, replica_addresses: [process.argv[2]] });
run(client)
  .then(() => {
    client.destroy();
    console.log("ok: accounts, transfers, two phases, merged requests, queries");
  })
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
