-- The schema at the former revision 0023, for tests/schema/test_from_0023.py.

CREATE TABLE users (
    username           text        PRIMARY KEY,
    email              text        NOT NULL,
    full_name          text        NOT NULL,
    hashed_password    text        NOT NULL,
    is_email_verified  boolean     NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    verified_at        timestamptz,
    first_mail_id      bigint,
    email_set_at       timestamptz,
    corrected_at       timestamptz[] NOT NULL DEFAULT '{}',
    wrong_passwords_at timestamptz[] NOT NULL DEFAULT '{}',
    CONSTRAINT users_username_not_empty CHECK (username <> ''),
    CONSTRAINT users_email_not_empty CHECK (email <> '')
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email)) WHERE is_email_verified;
CREATE INDEX users_unverified_email_idx ON users (lower(email), created_at) WHERE NOT is_email_verified;
CREATE INDEX users_unverified_age_idx ON users (created_at, username) WHERE NOT is_email_verified;

CREATE TABLE verify_emails (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username    text        NOT NULL,
    email       text        NOT NULL,
    message_id  bigint      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz,
    wrong_passwords integer NOT NULL DEFAULT 0,
    CONSTRAINT verify_emails_message_id_key UNIQUE (message_id),
    CONSTRAINT verify_emails_username_fkey FOREIGN KEY (username) REFERENCES users
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX verify_emails_username_idx ON verify_emails (username);

CREATE TABLE outbox (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task          text        NOT NULL,
    payload       jsonb       NOT NULL,
    queue         text        NOT NULL DEFAULT 'default',
    status        text        NOT NULL DEFAULT 'pending',
    due_at        timestamptz NOT NULL DEFAULT now(),
    generation    integer     NOT NULL DEFAULT 0,
    attempt       integer     NOT NULL DEFAULT 0,
    max_retries   integer     NOT NULL DEFAULT 10,
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
    uid           uuid        DEFAULT gen_random_uuid(),
    CONSTRAINT outbox_payload_size CHECK (status = 'dead' OR pg_column_size(payload) <= 1048576),
    CONSTRAINT outbox_numbers_in_range CHECK (id > 0 AND greatest(generation, attempt, max_retries) < 1000000000),
    CONSTRAINT outbox_texts_in_range CHECK (
        greatest(octet_length(task), octet_length(broker_epoch), octet_length(traceparent)) <= 200
        AND octet_length(last_error) <= 8000),
    CONSTRAINT outbox_due_at_in_range CHECK (
        (due_at >= '0001-01-01 00:00:00+00' AND due_at <= '9999-12-31 00:00:00+00') OR NOT isfinite(due_at)),
    CONSTRAINT outbox_times_in_range CHECK (
        least(created_at, published_at, claimed_at, lease_until) >= '0001-01-01 00:00:00+00'
        AND greatest(created_at, published_at, claimed_at, lease_until) <= '9999-12-31 00:00:00+00'),
    CONSTRAINT outbox_failures_are_objects CHECK (
        failures = '[]' OR pg_column_size(failures) <= 1048576
            AND NOT jsonb_path_exists(failures, 'strict $[*] ? (@.type() != "object")', '{}', true))
);

CREATE DOMAIN valid_message AS outbox
    CONSTRAINT outbox_task_not_empty CHECK ((VALUE).task <> '')
    CONSTRAINT outbox_queue_known CHECK ((VALUE).queue IN ('critical', 'default'))
    CONSTRAINT outbox_status_live CHECK ((VALUE).status IN ('pending', 'published', 'running', 'dead'))
    CONSTRAINT outbox_live_is_not_finished CHECK ((VALUE).finished_at IS NULL)
    CONSTRAINT outbox_generation_not_negative CHECK ((VALUE).generation >= 0)
    CONSTRAINT outbox_attempt_not_negative CHECK ((VALUE).attempt >= 0)
    CONSTRAINT outbox_max_retries_not_negative CHECK ((VALUE).max_retries >= 0)
    CONSTRAINT outbox_failures_is_array CHECK (jsonb_typeof((VALUE).failures) = 'array')
    CONSTRAINT outbox_lease_while_published_or_running CHECK (
        ((VALUE).lease_until IS NOT NULL) = ((VALUE).status IN ('published', 'running')))
    CONSTRAINT outbox_claim_token_while_running CHECK (
        ((VALUE).claim_token IS NOT NULL) = ((VALUE).status = 'running'))
    CONSTRAINT outbox_published_names_its_epoch CHECK (
        (VALUE).status <> 'published'
        OR ((VALUE).broker_epoch IS NOT NULL AND (VALUE).published_at IS NOT NULL))
    CONSTRAINT outbox_running_has_claim_time CHECK (
        (VALUE).status <> 'running' OR ((VALUE).claimed_at IS NOT NULL AND (VALUE).attempt > 0))
    CONSTRAINT outbox_dead_has_reason CHECK (
        (VALUE).status <> 'dead' OR (VALUE).last_error IS NOT NULL);

ALTER TABLE outbox ADD CONSTRAINT outbox_rules CHECK ((outbox.*)::valid_message IS DISTINCT FROM NULL);
CREATE INDEX outbox_pending_idx ON outbox (queue, due_at, id) WHERE status = 'pending';
CREATE INDEX outbox_published_idx ON outbox (broker_epoch, lease_until) WHERE status = 'published';
CREATE INDEX outbox_running_idx ON outbox (lease_until) WHERE status = 'running';
CREATE INDEX outbox_dead_idx ON outbox (id) WHERE status = 'dead';
CREATE INDEX outbox_account_idx ON outbox (left(payload ->> 'username', 64) COLLATE "C")
 WHERE starts_with(task, 'task:send_');

CREATE TABLE outbox_finished (
    LIKE outbox,
    CONSTRAINT outbox_finished_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_finished_status CHECK (status IN ('done', 'discarded')),
    CONSTRAINT outbox_finished_has_finish_time CHECK (finished_at IS NOT NULL),
    CONSTRAINT outbox_finished_holds_no_claim CHECK (claim_token IS NULL AND lease_until IS NULL)
);
CREATE INDEX outbox_finished_age_idx ON outbox_finished (finished_at);

CREATE VIEW outbox_messages AS
    SELECT id, task, payload, queue, status, due_at, generation, attempt, max_retries, claim_token, lease_until,
           broker_epoch, last_error, failures, traceparent, created_at, published_at, claimed_at, finished_at,
           uid
      FROM outbox
    UNION ALL
    SELECT id, task, payload, queue, status, due_at, generation, attempt, max_retries, claim_token, lease_until,
           broker_epoch, last_error, failures, traceparent, created_at, published_at, claimed_at, finished_at,
           uid
      FROM outbox_finished;

CREATE TABLE outbox_breaker (
    name        text        PRIMARY KEY,
    opened_at   timestamptz,
    outages     integer     NOT NULL DEFAULT 0,
    probe_at    timestamptz,
    probe_id    bigint,
    last_error  text,
    policy_code text,
    refusals    jsonb       NOT NULL DEFAULT '[]',
    accepted_at timestamptz,
    CONSTRAINT outbox_breaker_only_mail CHECK (name = 'mail'),
    CONSTRAINT outbox_breaker_open_has_probe_time CHECK ((opened_at IS NULL) = (probe_at IS NULL))
);
INSERT INTO outbox_breaker (name) VALUES ('mail');

CREATE TABLE outbox_relays (
    name        text        PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL
);

CREATE TABLE idempotency_keys (
    key         text        PRIMARY KEY,
    body_hmac   bytea       NOT NULL,
    outcome     jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_key_not_empty CHECK (key <> ''),
    CONSTRAINT idempotency_keys_body_hmac_is_sha256 CHECK (length(body_hmac) = 32)
);
CREATE INDEX idempotency_keys_age_idx ON idempotency_keys (created_at);

CREATE TABLE resends (
    email_hmac  bytea         PRIMARY KEY,
    mailed_at   timestamptz[] NOT NULL,
    asked_at    timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT resends_email_hmac_is_sha256 CHECK (length(email_hmac) = 32),
    CONSTRAINT resends_five_mails_a_day CHECK (cardinality(mailed_at) BETWEEN 1 AND 5)
);
CREATE INDEX resends_age_idx ON resends (asked_at);

CREATE TABLE ops_sessions (
    id           bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    secret_hmac  bytea        NOT NULL,
    opened_at    timestamptz  NOT NULL DEFAULT now(),
    ends_at      timestamptz  NOT NULL,
    last_form    text,
    CONSTRAINT ops_sessions_secret_hmac_key UNIQUE (secret_hmac),
    CONSTRAINT ops_sessions_secret_hmac_is_sha256 CHECK (length(secret_hmac) = 32),
    CONSTRAINT ops_sessions_last_form_is_short CHECK (length(last_form) <= 100)
);

CREATE TABLE verification_mails (
    message_id    bigint      PRIMARY KEY,
    mailbox_hmac  bytea       NOT NULL,
    address_hmac  bytea       NOT NULL,
    client_hmac   bytea,
    state         text        NOT NULL,
    due_at        timestamptz NOT NULL,
    CONSTRAINT verification_mails_state_known CHECK (state IN ('prompt', 'waiting', 'daily', 'discarded'))
);
CREATE INDEX verification_mails_mailbox_idx ON verification_mails (mailbox_hmac, due_at)
    WHERE state <> 'discarded';
CREATE INDEX verification_mails_waiting_idx ON verification_mails (due_at)
    WHERE state IN ('waiting', 'daily');
CREATE INDEX verification_mails_due_idx ON verification_mails (due_at) WHERE state <> 'discarded';
CREATE INDEX verification_mails_discarded_idx ON verification_mails (due_at) WHERE state = 'discarded';

CREATE TABLE mail_counts (
    scope         bytea       NOT NULL,
    window_start  timestamptz NOT NULL,
    slot          smallint    NOT NULL,
    mails         integer     NOT NULL,
    CONSTRAINT mail_counts_pkey PRIMARY KEY (scope, window_start, slot)
) WITH (fillfactor = 50);
CREATE INDEX mail_counts_window_idx ON mail_counts (window_start);

CREATE TABLE ignored_headers (
    name     text        PRIMARY KEY,
    seen_at  timestamptz NOT NULL
);

CREATE TABLE alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version VALUES ('0023');
