-- Bring a database from the former revision 0023 to 0001_schema.
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f migrations/from_0023.sql
--
-- The rules of a message, so far constraints of the type valid_message, become constraints of the table outbox with the
-- same names. API, relay and workers of either version may run meanwhile, and every row keeps to the rules at each
-- moment. Where somebody keeps outbox locked for two seconds the script gives up, so that nobody waits behind it for
-- longer. Run it again then: it begins from the start and may be applied any number of times.

BEGIN;
-- One change of the schema at a time: schema.sql and the migrations take the same lock.
SELECT pg_advisory_xact_lock(7382945610291);
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '2s';

DO $$
DECLARE
    revision text;
BEGIN
    IF to_regclass('mail_counts') IS NULL THEN
        RAISE EXCEPTION 'the tables are older than revision 0023: see docs/operations/migrations.md';
    END IF;
    IF to_regclass('alembic_version') IS NOT NULL THEN
        SELECT version_num INTO revision FROM alembic_version WHERE version_num NOT IN ('0023', '0001_schema');
        IF FOUND THEN
            RAISE EXCEPTION 'the database is at revision %, not at 0023: see docs/operations/migrations.md', revision;
        END IF;
    END IF;
END
$$;

-- NOT VALID reads no rows: the lock, for which reads and writes wait, is held for a moment only.
ALTER TABLE outbox
    DROP CONSTRAINT IF EXISTS outbox_task_not_empty,
    DROP CONSTRAINT IF EXISTS outbox_queue_known,
    DROP CONSTRAINT IF EXISTS outbox_status_live,
    DROP CONSTRAINT IF EXISTS outbox_live_is_not_finished,
    DROP CONSTRAINT IF EXISTS outbox_generation_not_negative,
    DROP CONSTRAINT IF EXISTS outbox_attempt_not_negative,
    DROP CONSTRAINT IF EXISTS outbox_max_retries_not_negative,
    DROP CONSTRAINT IF EXISTS outbox_failures_is_array,
    DROP CONSTRAINT IF EXISTS outbox_lease_while_published_or_running,
    DROP CONSTRAINT IF EXISTS outbox_claim_token_while_running,
    DROP CONSTRAINT IF EXISTS outbox_published_names_its_epoch,
    DROP CONSTRAINT IF EXISTS outbox_running_has_claim_time,
    DROP CONSTRAINT IF EXISTS outbox_dead_has_reason,
    ADD CONSTRAINT outbox_task_not_empty CHECK (task <> '') NOT VALID,
    ADD CONSTRAINT outbox_queue_known CHECK (queue IN ('critical', 'default')) NOT VALID,
    ADD CONSTRAINT outbox_status_live CHECK (status IN ('pending', 'published', 'running', 'dead')) NOT VALID,
    ADD CONSTRAINT outbox_live_is_not_finished CHECK (finished_at IS NULL) NOT VALID,
    ADD CONSTRAINT outbox_generation_not_negative CHECK (generation >= 0) NOT VALID,
    ADD CONSTRAINT outbox_attempt_not_negative CHECK (attempt >= 0) NOT VALID,
    ADD CONSTRAINT outbox_max_retries_not_negative CHECK (max_retries >= 0) NOT VALID,
    ADD CONSTRAINT outbox_failures_is_array CHECK (jsonb_typeof(failures) = 'array') NOT VALID,
    ADD CONSTRAINT outbox_lease_while_published_or_running CHECK (
        (lease_until IS NOT NULL) = (status IN ('published', 'running'))) NOT VALID,
    ADD CONSTRAINT outbox_claim_token_while_running CHECK ((claim_token IS NOT NULL) = (status = 'running')) NOT VALID,
    ADD CONSTRAINT outbox_published_names_its_epoch CHECK (
        status <> 'published' OR (broker_epoch IS NOT NULL AND published_at IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT outbox_running_has_claim_time CHECK (
        status <> 'running' OR (claimed_at IS NOT NULL AND attempt > 0)) NOT VALID,
    ADD CONSTRAINT outbox_dead_has_reason CHECK (status <> 'dead' OR last_error IS NOT NULL) NOT VALID;
COMMIT;

-- Reads all rows, while others read and write.
BEGIN;
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = 0;
ALTER TABLE outbox
    VALIDATE CONSTRAINT outbox_task_not_empty,
    VALIDATE CONSTRAINT outbox_queue_known,
    VALIDATE CONSTRAINT outbox_status_live,
    VALIDATE CONSTRAINT outbox_live_is_not_finished,
    VALIDATE CONSTRAINT outbox_generation_not_negative,
    VALIDATE CONSTRAINT outbox_attempt_not_negative,
    VALIDATE CONSTRAINT outbox_max_retries_not_negative,
    VALIDATE CONSTRAINT outbox_failures_is_array,
    VALIDATE CONSTRAINT outbox_lease_while_published_or_running,
    VALIDATE CONSTRAINT outbox_claim_token_while_running,
    VALIDATE CONSTRAINT outbox_published_names_its_epoch,
    VALIDATE CONSTRAINT outbox_running_has_claim_time,
    VALIDATE CONSTRAINT outbox_dead_has_reason;
COMMIT;

BEGIN;
SELECT pg_advisory_xact_lock(7382945610291);
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '2s';
ALTER TABLE outbox DROP CONSTRAINT IF EXISTS outbox_rules;
DROP DOMAIN IF EXISTS valid_message;
-- As alembic creates it, for a database that schema.sql made.
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DELETE FROM alembic_version;
INSERT INTO alembic_version VALUES ('0001_schema');
COMMIT;
