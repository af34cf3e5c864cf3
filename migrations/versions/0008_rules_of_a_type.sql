CREATE DOMAIN valid_message AS outbox
    CONSTRAINT outbox_task_not_empty CHECK ((VALUE).task <> '')
    CONSTRAINT outbox_queue_known CHECK ((VALUE).queue IN ('critical', 'default'))
    -- done and discarded are the states of outbox_finished.
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
