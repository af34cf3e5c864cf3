"""`doctor` on a healthy installation, and with one fault planted at a time."""

from typing import Any

import pytest

from tests.outbox_relay.commands.running import run
from tests.outbox_relay.doctor.installation import Installation, faults
from tests.outbox_relay.doctor.planted_faults import (
    a_changed_constraint,
    a_lease_shorter_than_a_pop,
    a_mail_server_whose_name_is_none,
    a_message_that_nobody_publishes,
    a_missing_column,
    a_missing_index,
    a_missing_rule,
    a_name_that_does_not_resolve,
    a_number_of_processes_that_is_none,
    a_postgresql_that_takes_no_writes,
    a_queue_that_is_no_list,
    a_redis_that_evicts,
    a_redis_that_is_a_replica,
    a_redis_that_lets_us_do_nothing,
    a_relay_that_fell_silent,
    a_role_without_a_grant,
    a_rule_that_no_row_was_held_against,
    a_short_secret,
    a_short_token,
    a_timeout_beyond_the_lease,
    an_open_breaker,
    commits_that_are_not_on_disk,
    mail_server_away,
    no_autovacuum,
    no_grant,
    no_schema,
    no_such_database,
    no_usage_of_the_schema,
    no_worker_for_default,
    postgresql_away,
    redis_away,
    suspended_workers,
    workers_suspended_for_a_while,
)


def test_a_healthy_installation_has_no_fault(healthy: Installation) -> None:
    ended = run("doctor")

    assert (ended.exit_code, {line.split()[0] for line in ended.output.splitlines()}) == (0, {"ok"}), ended.output


@pytest.mark.parametrize(
    ("plant", "check", "cause"),
    [
        (a_missing_index, "schema", "index outbox_due_idx is missing"),
        (a_missing_column, "schema", "column outbox.last_error is missing"),
        (a_changed_constraint, "schema", "constraint outbox_finished_status differs"),
        (a_missing_rule, "schema", "constraint outbox_queue_known is missing"),
        (a_rule_that_no_row_was_held_against, "schema", "constraint outbox_queue_known differs"),
        (no_schema, "schema", "table outbox is missing"),
        (commits_that_are_not_on_disk, "postgresql settings", "synchronous_commit is off"),
        (no_autovacuum, "vacuum", "autovacuum is switched off"),
        (postgresql_away, "postgresql", ": Connection refused"),
        (no_such_database, "postgresql", 'FATAL: database "nothing_here" does not exist'),
        (a_name_that_does_not_resolve, "postgresql", "failed to resolve host 'nobody.invalid'"),
        (no_grant, "grants", "permission denied for table"),
        (no_usage_of_the_schema, "grants", "this role lacks USAGE on the schema"),
        (a_postgresql_that_takes_no_writes, "postgresql", "default_transaction_read_only is on"),
        (a_role_without_a_grant, "grants", "this role lacks UPDATE and DELETE on outbox_finished"),
        (redis_away, "redis", ": Connection refused"),
        (a_redis_that_lets_us_do_nothing, "redis", "NOPERM"),
        (a_redis_that_evicts, "redis eviction", "allkeys-lru"),
        (a_redis_that_is_a_replica, "redis", "replica"),
        (no_worker_for_default, "workers", "no worker is alive for default"),
        (suspended_workers, "workers", "they are suspended until they are resumed"),
        (workers_suspended_for_a_while, "workers", "they are suspended for"),
        (a_queue_that_is_no_list, "redis keys", "queue:critical is a string and has to be a list"),
        (mail_server_away, "mail server", ": Connection refused"),
        (an_open_breaker, "breaker", "421 busy"),
        (a_relay_that_fell_silent, "relay", "none is alive, the last was seen"),
        (a_short_secret, "settings", "SECRET_KEY needs at least 32 printable characters"),
        (a_short_token, "settings", "OPS_TOKEN needs at least 32 printable characters"),
        (a_number_of_processes_that_is_none, "settings", "WEB_CONCURRENCY has to be a whole number from 1 to 1000"),
        (a_mail_server_whose_name_is_none, "mail server", "it cannot be used: mail..example.com:25: UnicodeError"),
        (a_timeout_beyond_the_lease, "settings", "SMTP_TIMEOUT_SECONDS must not be longer"),
        (a_lease_shorter_than_a_pop, "leases", "OUTBOX_PUBLISH_LEASE_SECONDS is 2"),
        (a_message_that_nobody_publishes, "waiting", "a due message has been waiting"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_named_with_its_cause(healthy: Installation, plant: Any, check: str, cause: str) -> None:
    plant(healthy)

    found = faults()

    assert (next(iter(found)), cause in found[check]) == (check, True), found


def test_what_follows_from_a_schema_without_usage_is_no_fault_of_its_own(healthy: Installation) -> None:
    no_usage_of_the_schema(healthy)

    assert list(faults()) == ["grants"]


def test_a_mail_server_that_refuses_everybody_is_not_called_unreachable(healthy: Installation) -> None:
    an_open_breaker(healthy)
    healthy.sql("UPDATE outbox_destinations SET policy_code = '5.7.1'")

    assert "it refuses our mail" in " ".join(run("doctor").output.split())


def test_what_keeps_the_relays_from_working_is_named_before_them(healthy: Installation) -> None:
    a_relay_that_fell_silent(healthy)
    redis_away(healthy)

    assert list(faults()) == ["redis", "relay"]


def test_a_disabled_endpoint_is_named_with_what_waits_for_it(healthy: Installation) -> None:
    healthy.sql(
        "INSERT INTO webhook_endpoints (name, url, events) VALUES ('shop', 'https://example.com/a-token', '{e}')"
    )
    healthy.sql(
        "INSERT INTO outbox_destinations (name, paused_at, pause_reason)"
        " SELECT 'webhook:' || id, now(), 'disabled: the endpoint answered 410' FROM webhook_endpoints"
    )
    healthy.sql(
        "INSERT INTO outbox (task, payload, destination, due_at)"
        " SELECT 'task:deliver_webhook', '{}', 'webhook:' || id, '2100-01-01' FROM webhook_endpoints"
    )

    text = " ".join(run("doctor").output.split())

    assert "the endpoint shop is disabled (the endpoint answered 410); 1 messages wait for it" in text
    assert "webhooks enable shop" in text
    assert "a-token" not in text
