-- Four roles that may do what they need and nothing else: for the API, the relay, the worker, and another service that
-- may only append messages. PostgreSQL 14 to 18.
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/roles.sql
--
-- Run it as the owner of the tables, who may create roles, after schema.sql and after each migration; it may be run
-- again at any time. A role has no password until you give it one (docs/roles.md).

BEGIN;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['outbox_api', 'outbox_relay', 'outbox_worker', 'outbox_appender'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
    -- Where the tables are: the first schema of search_path.
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO outbox_api, outbox_relay, outbox_worker, outbox_appender',
                   current_schema());
END
$$;

-- The API: accounts, links, its own tables, and appending to the outbox.
GRANT SELECT, INSERT, UPDATE ON users TO outbox_api;
GRANT SELECT, UPDATE ON verify_emails TO outbox_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys, resends TO outbox_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON verification_mails TO outbox_api;
GRANT SELECT, INSERT, UPDATE ON mail_counts, ignored_headers TO outbox_api;
GRANT INSERT (task, payload, queue, due_at, traceparent, destination, dedup_key), UPDATE (payload, due_at)
   ON outbox TO outbox_api;
-- A mail that a limit discards is written into history at once, with an id of the outbox.
GRANT INSERT ON outbox_finished TO outbox_api;
GRANT USAGE ON SEQUENCE outbox_id_seq TO outbox_api;
-- Its metrics.
GRANT SELECT ON outbox, outbox_finished, outbox_messages, outbox_destinations, outbox_relays TO outbox_api;
-- Which endpoints get an event: neither their URLs nor their secrets.
GRANT SELECT (id, events, fan_out_until) ON webhook_endpoints TO outbox_api;
-- Only with OPS_TOKEN: the console keeps its sessions, retries and discards dead letters, and pauses and limits
-- destinations. Without it, remove these lines.
GRANT SELECT, INSERT, UPDATE, DELETE ON ops_sessions TO outbox_api;
GRANT UPDATE, DELETE ON outbox TO outbox_api;
GRANT INSERT, UPDATE ON outbox_destinations TO outbox_api;

-- The relay: moves messages, prunes history, and deletes expired accounts, of which it sees neither full name nor
-- password. Locking a row needs the right to write one column.
GRANT SELECT, UPDATE, DELETE ON outbox TO outbox_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_finished TO outbox_relay;
GRANT SELECT (username, email, is_email_verified, created_at, email_set_at), UPDATE (email_set_at), DELETE
   ON users TO outbox_relay;
GRANT SELECT (username, expires_at) ON verify_emails TO outbox_relay;
GRANT SELECT, UPDATE ON outbox_destinations TO outbox_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_relays TO outbox_relay;
GRANT SELECT ON ignored_headers TO outbox_relay;  -- for `doctor`
GRANT SELECT (id, name) ON webhook_endpoints TO outbox_relay;  -- for `doctor`
GRANT SELECT, UPDATE (due_at), DELETE ON verification_mails TO outbox_relay;
GRANT SELECT, UPDATE (mails), DELETE ON mail_counts TO outbox_relay;
-- Optional, for `doctor`: to see how long transactions of other roles have been open. It shows the statements of all
-- sessions of the server, and only a superuser (or a role with the admin option on it) can grant it.
-- GRANT pg_read_all_stats TO outbox_relay;

-- The worker: claims messages, reads accounts, and finishes messages.
GRANT SELECT, UPDATE, DELETE ON outbox TO outbox_worker;
-- What handlers append. The tables of your own tasks need grants of their own.
GRANT INSERT (task, payload, queue, due_at, traceparent, destination) ON outbox TO outbox_worker;
GRANT SELECT, INSERT ON outbox_finished TO outbox_worker;
GRANT SELECT, INSERT, UPDATE ON outbox_destinations TO outbox_worker;
GRANT SELECT ON users TO outbox_worker;
GRANT SELECT, INSERT, UPDATE ON verify_emails TO outbox_worker;
-- Webhooks: where to, signed by what, and to end the events of an endpoint that wants no more.
GRANT SELECT, UPDATE (fan_out_until) ON webhook_endpoints TO outbox_worker;
GRANT SELECT ON webhook_secrets TO outbox_worker;

-- Another service: appends, and reads nothing, not even its own messages.
GRANT INSERT (task, payload, queue, due_at, max_retries, destination, dedup_key) ON outbox TO outbox_appender;
-- Optional, for appends with a dedup key. The role can then read and change the payload of every message.
-- GRANT SELECT (id, task, payload, due_at, dedup_key, claimed_at), UPDATE (payload, due_at) ON outbox TO outbox_appender;

COMMIT;
