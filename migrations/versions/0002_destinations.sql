-- NOT VALID reads no rows: the locks, for which reads and writes wait, are held for a moment only.
ALTER TABLE outbox
    ALTER COLUMN max_retries DROP NOT NULL,
    ALTER COLUMN max_retries DROP DEFAULT,
    ADD COLUMN destination text COLLATE "C",
    ADD COLUMN dedup_key text,
    ADD CONSTRAINT outbox_destination_form CHECK (
        destination ~ '^[a-z0-9][a-z0-9_.:-]*$' AND octet_length(destination) <= 64) NOT VALID,
    ADD CONSTRAINT outbox_dedup_key_length
        CHECK (octet_length(dedup_key) >= 1 AND octet_length(dedup_key) <= 200) NOT VALID;

ALTER TABLE outbox_finished
    ALTER COLUMN max_retries DROP NOT NULL,
    ADD COLUMN destination text COLLATE "C",
    ADD COLUMN dedup_key text;

CREATE OR REPLACE VIEW outbox_messages AS
    SELECT id, task, payload, queue, status, due_at, generation, attempt, max_retries, claim_token, lease_until,
           broker_epoch, last_error, failures, traceparent, created_at, published_at, claimed_at, finished_at,
           uid, destination, dedup_key
      FROM outbox
    UNION ALL
    SELECT id, task, payload, queue, status, due_at, generation, attempt, max_retries, claim_token, lease_until,
           broker_epoch, last_error, failures, traceparent, created_at, published_at, claimed_at, finished_at,
           uid, destination, dedup_key
      FROM outbox_finished;

CREATE TABLE outbox_destinations (
    name            text              COLLATE "C" PRIMARY KEY,
    opened_at       timestamptz,
    outages         integer           NOT NULL DEFAULT 0,
    probe_at        timestamptz,
    probe_id        bigint,
    last_error      text,
    policy_code     text,
    refusals        jsonb             NOT NULL DEFAULT '[]',
    accepted_at     timestamptz,
    -- Nothing new begins while paused_at is set.
    paused_at       timestamptz,
    pause_reason    text,
    -- The limit, and how many sends it allows at the moment, as of refilled_at.
    max_per_second  double precision,
    tokens          double precision,
    refilled_at     timestamptz,
    -- How many messages may be in hand at a time in all workers, and the claim tokens of those that are, by message id.
    max_in_flight   integer,
    in_flight       jsonb             NOT NULL DEFAULT '{}',
    -- When a worker last saw a send that took longer than a second.
    slow_at         timestamptz,
    CONSTRAINT outbox_destinations_name_form CHECK (
        name ~ '^[a-z0-9][a-z0-9_.:-]*$' AND octet_length(name) <= 64),
    CONSTRAINT outbox_destinations_open_has_probe_time CHECK ((opened_at IS NULL) = (probe_at IS NULL)),
    CONSTRAINT outbox_destinations_reason_while_paused CHECK (paused_at IS NOT NULL OR pause_reason IS NULL),
    CONSTRAINT outbox_destinations_rate_in_range CHECK (max_per_second >= 0.001 AND max_per_second <= 1000000),
    CONSTRAINT outbox_destinations_in_flight_range CHECK (max_in_flight >= 1 AND max_in_flight <= 1000),
    CONSTRAINT outbox_destinations_in_flight_is_object CHECK (jsonb_typeof(in_flight) = 'object')
);

-- Serves take_probe (the open destinations whose probe is due).
CREATE INDEX outbox_destinations_probe_idx ON outbox_destinations (probe_at)
 WHERE opened_at IS NOT NULL AND paused_at IS NULL;

-- Serves take_probe (how many probes are out).
CREATE INDEX outbox_destinations_probes_out_idx ON outbox_destinations (probe_at)
 WHERE probe_id IS NOT NULL;

CREATE INDEX outbox_destinations_marked_idx ON outbox_destinations (name)
 WHERE opened_at IS NOT NULL OR paused_at IS NOT NULL OR max_per_second IS NOT NULL OR max_in_flight IS NOT NULL;

ALTER TABLE outbox_breaker RENAME TO former_breaker;

INSERT INTO outbox_destinations (name, opened_at, outages, probe_at, probe_id, last_error, policy_code, refusals,
                                 accepted_at)
SELECT name, opened_at, outages, probe_at, probe_id, last_error, policy_code, refusals, accepted_at
  FROM former_breaker
 WHERE opened_at IS NOT NULL OR refusals <> '[]' OR accepted_at IS NOT NULL;

-- For processes of the version before, which know one destination: the row of mail.
CREATE VIEW outbox_breaker AS
    SELECT name, opened_at, outages, probe_at, probe_id, last_error, policy_code, refusals, accepted_at
      FROM outbox_destinations
     WHERE name = 'mail';

-- Whoever had a privilege on the former table has it on both.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS who
          FROM pg_class, aclexplode(relacl)
         WHERE pg_class.oid = 'former_breaker'::regclass AND grantee <> relowner
           AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON outbox_destinations, outbox_breaker TO %s', granted.privilege_type, granted.who);
    END LOOP;
END
$$;

DROP TABLE former_breaker;
