-- What a chaos run adds to the service's schema: a record of every change of a message, written in the change's own
-- transaction. So it holds exactly what was committed, in the order in which it happened to each message.

CREATE TABLE chaos_history (
    n               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL,
    by              text        NOT NULL,
    message_id      bigint      NOT NULL,
    change          text        NOT NULL,
    status          text        NOT NULL,
    generation      integer     NOT NULL,
    attempt         integer     NOT NULL,
    claim_token     uuid,
    reason          text,
    maybe_accepted  boolean     NOT NULL
);

CREATE FUNCTION chaos_record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    message outbox := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO chaos_history (
        at, by, message_id, change, status, generation, attempt, claim_token, reason, maybe_accepted)
    VALUES (
        clock_timestamp(), current_setting('application_name'), message.id, lower(TG_OP), message.status,
        message.generation, message.attempt, message.claim_token, message.last_error,
        coalesce((message.failures -> -1 ->> 'maybe_accepted')::boolean, false));
    RETURN NULL;
END
$$;

CREATE TRIGGER chaos_record AFTER INSERT OR UPDATE OR DELETE ON outbox
    FOR EACH ROW EXECUTE FUNCTION chaos_record();

-- The jobs of the run's own tasks: a row is committed with its message.
CREATE TABLE chaos_jobs (job bigint PRIMARY KEY, task text NOT NULL, message_id bigint NOT NULL);

-- What the tasks did. No key: a second row of a job would be an effect that happened twice.
CREATE TABLE chaos_effects (job bigint NOT NULL);
