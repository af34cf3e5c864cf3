-- The tables of the outbox signup service. PostgreSQL 14 to 18.
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f schema.sql
--
-- It may be applied again at any time: what exists already is left alone. If a session keeps a table locked for two
-- seconds, it gives up without a change, so that no statement waits behind it: apply it again.
-- `outbox` holds unfinished messages, `outbox_finished` holds history, and the view `outbox_messages` shows both. Moving
-- finished rows out keeps the live table as small as the backlog, however long the history grows.

BEGIN;

-- Two processes that apply this file at once would race between IF NOT EXISTS and the catalogue.
SELECT pg_advisory_xact_lock(7382945610291);
SET LOCAL client_min_messages = warning;
-- CREATE INDEX locks its table until COMMIT even if the index exists. An autovacuum yields after a second
-- (deadlock_timeout).
SET LOCAL lock_timeout = '2s';

CREATE TABLE IF NOT EXISTS users (
    username           text        PRIMARY KEY,
    email              text        NOT NULL,
    full_name          text        NOT NULL,
    hashed_password    text        NOT NULL,
    is_email_verified  boolean     NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    verified_at        timestamptz,
    -- Corrections of the address: the message of the last one, its time, and the times of the last day.
    first_mail_id      bigint,
    email_set_at       timestamptz,
    corrected_at       timestamptz[] NOT NULL DEFAULT '{}',
    -- Wrong passwords of the last day, of signups that named this unverified account again.
    wrong_passwords_at timestamptz[] NOT NULL DEFAULT '{}',
    CONSTRAINT users_username_not_empty CHECK (username <> ''),
    CONSTRAINT users_email_not_empty CHECK (email <> '')
);

-- An address belongs to the account that was verified with it, whatever its case. Before that, several accounts may
-- name it.
CREATE UNIQUE INDEX IF NOT EXISTS users_email_key ON users (lower(email)) WHERE is_email_verified;

-- Serves links (do several accounts name the address?) and resending a mail (the newest of them).
CREATE INDEX IF NOT EXISTS users_unverified_email_idx ON users (lower(email), created_at) WHERE NOT is_email_verified;

-- Serves the expiry of unverified accounts (the oldest of them).
CREATE INDEX IF NOT EXISTS users_unverified_age_idx ON users (created_at, username) WHERE NOT is_email_verified;

-- One record per message, made at its first claim and used by its retries: the link's signature covers id and address, so
-- that every retry sends the same link.
CREATE TABLE IF NOT EXISTS verify_emails (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username    text        NOT NULL,
    email       text        NOT NULL,
    message_id  bigint      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz,
    -- Five wrong passwords beside it end a link.
    wrong_passwords integer NOT NULL DEFAULT 0,
    CONSTRAINT verify_emails_message_id_key UNIQUE (message_id),
    CONSTRAINT verify_emails_username_fkey FOREIGN KEY (username) REFERENCES users
        ON UPDATE CASCADE ON DELETE CASCADE
);

-- Serves the foreign key: deleting a user searches for its records.
CREATE INDEX IF NOT EXISTS verify_emails_username_idx ON verify_emails (username);

-- A row with (task, payload, queue) alone is a complete message.
CREATE TABLE IF NOT EXISTS outbox (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task          text        NOT NULL,
    payload       jsonb       NOT NULL,
    queue         text        NOT NULL DEFAULT 'default',
    status        text        NOT NULL DEFAULT 'pending',
    due_at        timestamptz NOT NULL DEFAULT now(),
    generation    integer     NOT NULL DEFAULT 0,
    attempt       integer     NOT NULL DEFAULT 0,
    -- NULL: as many as the task allows.
    max_retries   integer,
    claim_token   uuid,
    lease_until   timestamptz,
    broker_epoch  text,
    last_error    text,
    failures      jsonb       NOT NULL DEFAULT '[]',
    traceparent   text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    published_at  timestamptz,
    claimed_at    timestamptz,
    finished_at   timestamptz,
    -- The message's name to the outside, in the Message-ID of its mails. The claim sets it if the row has none.
    uid           uuid        DEFAULT gen_random_uuid(),
    -- The outside system that the message's work needs. NULL: the task's own, which the claim fills in.
    destination   text        COLLATE "C",
    -- While a message of a task waits for its first claim, another one with the same key becomes part of it.
    dedup_key     text,
    -- An error names the first constraint, in alphabetical order, that a row breaks.
    CONSTRAINT outbox_task_not_empty CHECK (task <> ''),
    CONSTRAINT outbox_queue_known CHECK (queue IN ('critical', 'default')),
    -- done and discarded are the states of outbox_finished.
    CONSTRAINT outbox_status_live CHECK (status IN ('pending', 'published', 'running', 'dead')),
    CONSTRAINT outbox_live_is_not_finished CHECK (finished_at IS NULL),
    CONSTRAINT outbox_generation_not_negative CHECK (generation >= 0),
    CONSTRAINT outbox_attempt_not_negative CHECK (attempt >= 0),
    CONSTRAINT outbox_max_retries_not_negative CHECK (max_retries >= 0),
    CONSTRAINT outbox_failures_is_array CHECK (jsonb_typeof(failures) = 'array'),
    CONSTRAINT outbox_lease_while_published_or_running CHECK (
        (lease_until IS NOT NULL) = (status IN ('published', 'running'))),
    CONSTRAINT outbox_claim_token_while_running CHECK ((claim_token IS NOT NULL) = (status = 'running')),
    CONSTRAINT outbox_published_names_its_epoch CHECK (
        status <> 'published' OR (broker_epoch IS NOT NULL AND published_at IS NOT NULL)),
    CONSTRAINT outbox_running_has_claim_time CHECK (
        status <> 'running' OR (claimed_at IS NOT NULL AND attempt > 0)),
    CONSTRAINT outbox_dead_has_reason CHECK (status <> 'dead' OR last_error IS NOT NULL),
    -- Bounds: beyond them our processes could not read, count or send. A dead letter may keep a payload of any size.
    CONSTRAINT outbox_payload_size CHECK (status = 'dead' OR pg_column_size(payload) <= 1048576),
    CONSTRAINT outbox_numbers_in_range CHECK (id > 0 AND greatest(generation, attempt, max_retries) < 1000000000),
    CONSTRAINT outbox_texts_in_range CHECK (
        greatest(octet_length(task), octet_length(broker_epoch), octet_length(traceparent)) <= 200
        AND octet_length(last_error) <= 8000),
    CONSTRAINT outbox_destination_form CHECK (
        destination ~ '^[a-z0-9][a-z0-9_.:-]*$' AND octet_length(destination) <= 64),
    CONSTRAINT outbox_dedup_key_length CHECK (octet_length(dedup_key) >= 1 AND octet_length(dedup_key) <= 200),
    -- Never (infinity) and at once (-infinity) are due times too.
    CONSTRAINT outbox_due_at_in_range CHECK (
        (due_at >= '0001-01-01 00:00:00+00' AND due_at <= '9999-12-31 00:00:00+00') OR NOT isfinite(due_at)),
    CONSTRAINT outbox_times_in_range CHECK (
        least(created_at, published_at, claimed_at, lease_until) >= '0001-01-01 00:00:00+00'
        AND greatest(created_at, published_at, claimed_at, lease_until) <= '9999-12-31 00:00:00+00'),
    CONSTRAINT outbox_failures_are_objects CHECK (
        failures = '[]' OR pg_column_size(failures) <= 1048576
            AND NOT jsonb_path_exists(failures, 'strict $[*] ? (@.type() != "object")', '{}', true))
);

-- Serves take_batch (the due messages of one queue and destination, oldest first), discover (the destinations that have
-- any, each with its oldest), and what operators read of pending messages.
CREATE INDEX IF NOT EXISTS outbox_due_idx ON outbox (queue, coalesce(destination, ''), due_at, id)
 WHERE status = 'pending';

-- Serves find_lease_expired: rows of another epoch are two ranges of it, rows whose lease is over the head of a third.
CREATE INDEX IF NOT EXISTS outbox_published_idx ON outbox (broker_epoch, lease_until) WHERE status = 'published';

-- Serves reap_running (claims whose lease is over).
CREATE INDEX IF NOT EXISTS outbox_running_idx ON outbox (lease_until) WHERE status = 'running';

-- Serves the list of dead letters.
CREATE INDEX IF NOT EXISTS outbox_dead_idx ON outbox (id) WHERE status = 'dead';

-- Serves the groups of dead letters: a hash of the task and the reason, with * for each part of the reason that varies
-- (quoted values, words with a digit or an @, names of hosts). Words and a reply code at the beginning are kept. The
-- condition means status = 'dead'; in this form no statement of the groups is planned with outbox_dead_idx, whose scan
-- would compute the hash of each dead letter.
CREATE INDEX IF NOT EXISTS outbox_dead_group_idx ON outbox (hashtextextended(task || ' ' || left(
    substring(last_error COLLATE "C" from
    '^(?:(?:[A-Za-z ]*(?:: |answered |HTTP |status ))?[2-5][0-9][0-9](?:[ -][245]\.[0-9]+\.[0-9]+)?(?:[ ,:;-]|$)|)')
    || regexp_replace(substr(left(last_error COLLATE "C", 1000), 1 + length(substring(last_error COLLATE "C" from
    '^(?:(?:[A-Za-z ]*(?:: |answered |HTTP |status ))?[2-5][0-9][0-9](?:[ -][245]\.[0-9]+\.[0-9]+)?(?:[ ,:;-]|$)|)'))),
    '''[^'' ](?:[^'']*[^'' ])?''|"[^"]*"|<[^<>]*>|[^ ]*[0-9@](?:[^ ]*[^ ,:;.])?|[a-z-]+\.[a-z.-]*[a-z]', '*', 'g'),
    200), 0), id) WHERE status || '' = 'dead';

-- Serves append with a dedup key: the message of the same task and key that waits for its first claim.
CREATE UNIQUE INDEX IF NOT EXISTS outbox_dedup_idx ON outbox (task, dedup_key)
 WHERE dedup_key IS NOT NULL AND claimed_at IS NULL;

-- Serves the expiry of unverified accounts: which of them has an unfinished mail? The beginning of a long name, which only
-- another service can have written, is enough; a whole one may be too large for an index. Payloads of tasks that send no
-- mail may be large, and would be decompressed at each step.
CREATE INDEX IF NOT EXISTS outbox_account_idx ON outbox (left(payload ->> 'username', 64) COLLATE "C")
 WHERE starts_with(task, 'task:send_');

-- History. A row comes here when it finishes, and is deleted by age alone.
CREATE TABLE IF NOT EXISTS outbox_finished (
    LIKE outbox,
    CONSTRAINT outbox_finished_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_finished_status CHECK (status IN ('done', 'discarded')),
    CONSTRAINT outbox_finished_has_finish_time CHECK (finished_at IS NOT NULL),
    CONSTRAINT outbox_finished_holds_no_claim CHECK (claim_token IS NULL AND lease_until IS NULL)
);

-- Serves prune (the oldest finished rows).
CREATE INDEX IF NOT EXISTS outbox_finished_age_idx ON outbox_finished (finished_at);

-- Serves the breaker of the mail server: when was a mail last accepted?
CREATE INDEX IF NOT EXISTS outbox_finished_mail_idx ON outbox_finished (finished_at)
 WHERE destination = 'mail' AND status = 'done';

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

-- One row for each destination that somebody paused or limited, or that was found unavailable or slow. A destination
-- without a row is available, not paused, and has no limit.
--
-- The breaker is open while opened_at is set: only a probe is published. With a policy_code the server answers but
-- refuses everyone: refusals lists who was refused by policy since a mail was last accepted.
CREATE TABLE IF NOT EXISTS outbox_destinations (
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
CREATE INDEX IF NOT EXISTS outbox_destinations_probe_idx ON outbox_destinations (probe_at)
 WHERE opened_at IS NOT NULL AND paused_at IS NULL;

-- Serves take_probe (how many probes are out).
CREATE INDEX IF NOT EXISTS outbox_destinations_probes_out_idx ON outbox_destinations (probe_at)
 WHERE probe_id IS NOT NULL;

-- Serves the list of destinations for operators: those that are unreachable, paused or limited.
CREATE INDEX IF NOT EXISTS outbox_destinations_marked_idx ON outbox_destinations (name)
 WHERE opened_at IS NOT NULL OR paused_at IS NOT NULL OR max_per_second IS NOT NULL OR max_in_flight IS NOT NULL;

-- For processes of the version before, which know one destination: the row of mail.
CREATE OR REPLACE VIEW outbox_breaker AS
    SELECT name, opened_at, outages, probe_at, probe_id, last_error, policy_code, refusals, accepted_at
      FROM outbox_destinations
     WHERE name = 'mail';

-- Endpoints of other services that get events as webhooks. The destination of their messages is webhook:<id>; an id is
-- never used again, a name may be. Disabled is a pause of that destination.
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text        NOT NULL,
    -- It may contain a token of the receiver's.
    url            text        NOT NULL,
    events         text[]      NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    enabled_at     timestamptz NOT NULL DEFAULT now(),
    -- Events after this time are not sent to it. NULL: all are.
    fan_out_until  timestamptz,
    -- Set while it is being removed.
    removed_at     timestamptz,
    CONSTRAINT webhook_endpoints_name_key UNIQUE (name),
    CONSTRAINT webhook_endpoints_name_form CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
    CONSTRAINT webhook_endpoints_url_length CHECK (octet_length(url) >= 1 AND octet_length(url) <= 2000),
    CONSTRAINT webhook_endpoints_has_events CHECK (events <> '{}')
);

-- What signs an endpoint's webhooks. Only the worker and the operator read it. After a rotation the former secret signs
-- too, until ends_at.
CREATE TABLE IF NOT EXISTS webhook_secrets (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id  bigint      NOT NULL,
    secret       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    ends_at      timestamptz,
    CONSTRAINT webhook_secrets_endpoint_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints ON DELETE CASCADE,
    CONSTRAINT webhook_secrets_secret_form CHECK (secret ~ '^whsec_[A-Za-z0-9+/]{32,88}={0,2}$')
);

-- Serves the secrets of an endpoint.
CREATE INDEX IF NOT EXISTS webhook_secrets_endpoint_idx ON webhook_secrets (endpoint_id);

-- One row per relay: when it was last seen. The API's metrics, `stats` and `doctor` read it; no step depends on it.
CREATE TABLE IF NOT EXISTS outbox_relays (
    name        text        PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL
);

-- The outcomes of signups with an Idempotency-Key, each written by the signup's own transaction. A key counts for 24
-- hours. The next signups with a key delete older rows, 20 each. `key` is an HMAC of the
-- client's network and the key that it sent, or of a form's own key and what was typed.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key         text        PRIMARY KEY,
    body_hmac   bytea       NOT NULL,
    outcome     jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_key_not_empty CHECK (key <> ''),
    CONSTRAINT idempotency_keys_body_hmac_is_sha256 CHECK (length(body_hmac) = 32)
);

-- Serves the deletion of the oldest.
CREATE INDEX IF NOT EXISTS idempotency_keys_age_idx ON idempotency_keys (created_at);

-- How often a mail was resent to an address, whether an account has it or not: at most one mail a minute and five a day.
-- Only an HMAC of the address is stored. Each request deletes 20 rows older than a day.
CREATE TABLE IF NOT EXISTS resends (
    email_hmac  bytea         PRIMARY KEY,
    mailed_at   timestamptz[] NOT NULL,
    asked_at    timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT resends_email_hmac_is_sha256 CHECK (length(email_hmac) = 32),
    CONSTRAINT resends_five_mails_a_day CHECK (cardinality(mailed_at) BETWEEN 1 AND 5)
);

-- Serves the deletion of the oldest.
CREATE INDEX IF NOT EXISTS resends_age_idx ON resends (asked_at);

-- One row per session of the console. Signing out deletes the row; the next login deletes expired ones. It stores an HMAC
-- of the cookie's secret by OPS_TOKEN: a row opens nothing, and a new token ends all sessions. last_form is the form that
-- was carried out last, so that a button that is pressed twice is no conflict.
CREATE TABLE IF NOT EXISTS ops_sessions (
    id           bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    secret_hmac  bytea        NOT NULL,
    opened_at    timestamptz  NOT NULL DEFAULT now(),
    ends_at      timestamptz  NOT NULL,
    last_form    text,
    CONSTRAINT ops_sessions_secret_hmac_key UNIQUE (secret_hmac),
    CONSTRAINT ops_sessions_secret_hmac_is_sha256 CHECK (length(secret_hmac) = 32),
    CONSTRAINT ops_sessions_last_form_is_short CHECK (length(last_form) <= 100)
);

-- The verification mails that were requested of the API, each written with its message, to limit the mails of a mailbox. Of
-- address, mailbox (the address without its tag) and the client's network only HMACs are stored. A mail is prompt, waiting
-- for a limit until due_at, the daily one of a mailbox beyond its limits, or discarded. The relays delete old rows.
CREATE TABLE IF NOT EXISTS verification_mails (
    message_id    bigint      PRIMARY KEY,
    mailbox_hmac  bytea       NOT NULL,
    address_hmac  bytea       NOT NULL,
    client_hmac   bytea,
    state         text        NOT NULL,
    due_at        timestamptz NOT NULL,
    CONSTRAINT verification_mails_state_known CHECK (state IN ('prompt', 'waiting', 'daily', 'discarded'))
);

-- Serves the decision about one more mail to a mailbox.
CREATE INDEX IF NOT EXISTS verification_mails_mailbox_idx ON verification_mails (mailbox_hmac, due_at)
    WHERE state <> 'discarded';

-- Serves the mails that wait for a limit.
CREATE INDEX IF NOT EXISTS verification_mails_waiting_idx ON verification_mails (due_at)
    WHERE state IN ('waiting', 'daily');

-- Serve the deletion of the oldest, the recently discarded mails, and the number of accounts that are never verified.
CREATE INDEX IF NOT EXISTS verification_mails_due_idx ON verification_mails (due_at) WHERE state <> 'discarded';
CREATE INDEX IF NOT EXISTS verification_mails_discarded_idx ON verification_mails (due_at) WHERE state = 'discarded';

-- How many verification mails are due in an hour of the clock, to one domain (its HMAC) or to all ('total'), if a limit is
-- set. Each backend counts in one of 64 slots, so that no signup waits for another one's row.
CREATE TABLE IF NOT EXISTS mail_counts (
    scope         bytea       NOT NULL,
    window_start  timestamptz NOT NULL,
    slot          smallint    NOT NULL,
    mails         integer     NOT NULL,
    CONSTRAINT mail_counts_pkey PRIMARY KEY (scope, window_start, slot)
) WITH (fillfactor = 50);

-- Serves the deletion of hours that are over.
CREATE INDEX IF NOT EXISTS mail_counts_window_idx ON mail_counts (window_start);

-- Forwarding headers that are not trusted: there is a proxy in front that TRUSTED_PROXIES does not count. The API writes
-- one at most every ten minutes; `doctor` reads them.
CREATE TABLE IF NOT EXISTS ignored_headers (
    name     text        PRIMARY KEY,
    seen_at  timestamptz NOT NULL
);

COMMIT;
