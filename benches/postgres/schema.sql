-- A ledger as one would write it in PostgreSQL: balances beside the accounts, two rows locked in the
-- order of their ids, the id of a transfer unique, limits checked inside the transaction.

CREATE TABLE accounts (
    id             bigint PRIMARY KEY,
    debits_posted  numeric NOT NULL DEFAULT 0,
    credits_posted numeric NOT NULL DEFAULT 0,
    limited        boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

CREATE TABLE transfers (
    id                bigint PRIMARY KEY,
    debit_account_id  bigint NOT NULL,
    credit_account_id bigint NOT NULL,
    amount            numeric NOT NULL,
    created           timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE SEQUENCE ids CACHE 1000;

-- One transfer. The status is that of the ledger's protocol.
CREATE FUNCTION transfer(transfer_id bigint, debit bigint, credit bigint, transfer_amount numeric)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    exceeds boolean;
BEGIN
    PERFORM 1 FROM accounts WHERE id IN (debit, credit) ORDER BY id FOR UPDATE;
    SELECT limited AND debits_posted + transfer_amount > credits_posted INTO exceeds
        FROM accounts WHERE id = debit;
    IF exceeds THEN
        RETURN 'exceeds_credits';
    END IF;
    INSERT INTO transfers (id, debit_account_id, credit_account_id, amount)
        VALUES (transfer_id, debit, credit, transfer_amount) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'exists';
    END IF;
    UPDATE accounts SET debits_posted = debits_posted + transfer_amount WHERE id = debit;
    UPDATE accounts SET credits_posted = credits_posted + transfer_amount WHERE id = credit;
    RETURN 'created';
END $$;

-- Many transfers as sets. They are made up here: the client has nothing to send, which favours
-- PostgreSQL. Limits are not checked one after the other, as they would have to be.
CREATE FUNCTION transfer_batch(size int, account_count bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    created bigint;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS batch (debit bigint, credit bigint, amount numeric)
        ON COMMIT DELETE ROWS;
    INSERT INTO batch
        SELECT debit, (debit + shift) % account_count + 1, 1 + floor(random() * 1000)
        FROM (SELECT 1 + floor(random() * account_count)::bigint AS debit,
                     floor(random() * (account_count - 1))::bigint AS shift
              FROM generate_series(1, size)) AS chosen;
    PERFORM 1 FROM accounts
        WHERE id IN (SELECT debit FROM batch UNION SELECT credit FROM batch) ORDER BY id FOR UPDATE;
    INSERT INTO transfers (id, debit_account_id, credit_account_id, amount)
        SELECT nextval('ids'), debit, credit, amount FROM batch ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS created = ROW_COUNT;
    UPDATE accounts
        SET debits_posted = debits_posted + debited, credits_posted = credits_posted + credited
        FROM (SELECT account, sum(debited) AS debited, sum(credited) AS credited
              FROM (SELECT debit AS account, amount AS debited, 0 AS credited FROM batch
                    UNION ALL SELECT credit, 0, amount FROM batch) AS sides
              GROUP BY account) AS sums
        WHERE id = account;
    RETURN created;
END $$;
