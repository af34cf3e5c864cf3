CREATE OR REPLACE FUNCTION outbox_check_row(message outbox) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    broken_rule text;
BEGIN
    broken_rule := CASE
        WHEN message.task = '' THEN 'outbox_task_not_empty'
        WHEN message.queue NOT IN ('critical', 'default') THEN 'outbox_queue_known'
        -- done and discarded are the states of outbox_finished.
        WHEN message.status NOT IN ('pending', 'published', 'running', 'dead') THEN 'outbox_status_live'
        WHEN message.finished_at IS NOT NULL THEN 'outbox_live_is_not_finished'
        WHEN message.generation < 0 THEN 'outbox_generation_not_negative'
        WHEN message.attempt < 0 THEN 'outbox_attempt_not_negative'
        WHEN message.max_retries < 0 THEN 'outbox_max_retries_not_negative'
        WHEN jsonb_typeof(message.failures) <> 'array' THEN 'outbox_failures_is_array'
        WHEN (message.lease_until IS NOT NULL) <> (message.status IN ('published', 'running'))
            THEN 'outbox_lease_while_published_or_running'
        WHEN (message.claim_token IS NOT NULL) <> (message.status = 'running')
            THEN 'outbox_claim_token_while_running'
        WHEN message.status = 'published' AND (message.broker_epoch IS NULL OR message.published_at IS NULL)
            THEN 'outbox_published_names_its_epoch'
        WHEN message.status = 'running' AND (message.claimed_at IS NULL OR message.attempt = 0)
            THEN 'outbox_running_has_claim_time'
        WHEN message.status = 'dead' AND message.last_error IS NULL THEN 'outbox_dead_has_reason'
    END;
    IF broken_rule IS NOT NULL THEN
        RAISE check_violation USING
            MESSAGE = 'a row of outbox breaks the rule ' || broken_rule,
            HINT = 'The rules stand in schema.sql, in the function outbox_check_row.',
            TABLE = 'outbox', CONSTRAINT = broken_rule;
    END IF;
    RETURN true;
END
$$;
