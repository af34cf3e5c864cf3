"""The constraints of schema.sql: no row is in an impossible state, or beyond what our processes can read."""

import psycopg
import pytest

from shared.database.connections import DbConnection

MALFORMED_NAMES = ["", "Mail", ":mail", "-mail", "a b", "a/b", "mail\\n", "m\u00e4il", "a" + 64 * "b", "mail,local"]

NOBODY = "'00000000-0000-0000-0000-000000000001'"


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ("outbox_status_live", {"status": "'done'"}),
        ("outbox_status_live", {"status": "'nonsense'"}),
        ("outbox_queue_known", {"queue": "'urgent'"}),
        ("outbox_task_not_empty", {"task": "''"}),
        ("outbox_generation_not_negative", {"generation": "-1"}),
        ("outbox_attempt_not_negative", {"attempt": "-1"}),
        ("outbox_max_retries_not_negative", {"max_retries": "-1"}),
        ("outbox_failures_is_array", {"failures": "'{}'"}),
        ("outbox_lease_while_published_or_running", {"lease_until": "now()"}),
        (
            "outbox_lease_while_published_or_running",
            {"status": "'published'", "broker_epoch": "'e'", "published_at": "now()"},
        ),
        (
            "outbox_lease_while_published_or_running",
            {"status": "'running'", "claim_token": NOBODY, "claimed_at": "now()", "attempt": "1"},
        ),
        ("outbox_claim_token_while_running", {"claim_token": NOBODY}),
        (
            "outbox_claim_token_while_running",
            {"status": "'running'", "lease_until": "now()", "claimed_at": "now()", "attempt": "1"},
        ),
        (
            "outbox_published_names_its_epoch",
            {"status": "'published'", "lease_until": "now()", "published_at": "now()"},
        ),
        (
            "outbox_published_names_its_epoch",
            {"status": "'published'", "lease_until": "now()", "broker_epoch": "'e'"},
        ),
        (
            "outbox_running_has_claim_time",
            {"status": "'running'", "claim_token": NOBODY, "lease_until": "now()", "attempt": "1"},
        ),
        (
            "outbox_running_has_claim_time",
            {"status": "'running'", "claim_token": NOBODY, "lease_until": "now()", "claimed_at": "now()"},
        ),
        ("outbox_dead_has_reason", {"status": "'dead'"}),
        ("outbox_live_is_not_finished", {"finished_at": "now()"}),
        ("outbox_queue_known", {"queue": "'urgent'", "status": "'nonsense'", "task": "''"}),
    ],
)
def test_an_impossible_state_is_refused(connection: DbConnection, rule: str, columns: dict[str, str]) -> None:
    row = {"task": "'t'", "payload": "'{}'", **columns}

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join(row.values())})")

    assert caught.value.diag.constraint_name == rule


@pytest.mark.parametrize(
    ("bound", "columns"),
    [
        ("outbox_payload_size", {"payload": "to_jsonb(repeat('x', 1048576))"}),
        ("outbox_numbers_in_range", {"generation": "1000000000"}),
        ("outbox_numbers_in_range", {"attempt": "1000000000"}),
        ("outbox_numbers_in_range", {"max_retries": "1000000000"}),
        ("outbox_numbers_in_range", {"id": "0"}),
        ("outbox_texts_in_range", {"task": "repeat('x', 201)"}),
        ("outbox_texts_in_range", {"broker_epoch": "repeat('x', 201)"}),
        ("outbox_texts_in_range", {"traceparent": "repeat('x', 201)"}),
        ("outbox_texts_in_range", {"last_error": "repeat('x', 8001)"}),
        ("outbox_due_at_in_range", {"due_at": "'10000-01-01'"}),
        ("outbox_due_at_in_range", {"due_at": "'0001-01-01 00:00:00+00 BC'"}),
        ("outbox_times_in_range", {"created_at": "'infinity'"}),
        ("outbox_times_in_range", {"published_at": "'10000-01-01'"}),
        ("outbox_times_in_range", {"claimed_at": "'-infinity'"}),
        (
            "outbox_times_in_range",
            {
                "lease_until": "'infinity'",
                "status": "'published'",
                "broker_epoch": "'e'",
                "published_at": "now()",
            },
        ),
        ("outbox_failures_are_objects", {"failures": "'[1]'"}),
        ("outbox_failures_are_objects", {"failures": "'[{}, []]'"}),
        ("outbox_failures_are_objects", {"failures": "jsonb_build_array(repeat('x', 1048576))"}),
        ("outbox_dedup_key_length", {"dedup_key": "''"}),
        ("outbox_dedup_key_length", {"dedup_key": "repeat('x', 201)"}),
        *(("outbox_destination_form", {"destination": f"E'{name}'"}) for name in MALFORMED_NAMES),
    ],
)
def test_what_is_out_of_bounds_is_refused(connection: DbConnection, bound: str, columns: dict[str, str]) -> None:
    row = {"task": "'t'", "payload": "'{}'", **columns}

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(
            f"INSERT INTO outbox ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(row.values())})"
        )

    assert caught.value.diag.constraint_name == bound


@pytest.mark.parametrize(
    "columns",
    [
        {"due_at": "'infinity'"},
        {"due_at": "'-infinity'"},
        {"due_at": "'0001-01-01 00:00:00+00'"},
        {"failures": """'[{"at": 1, "more": [{}]}]'"""},
        {"payload": "to_jsonb(repeat('x', 2000000))", "status": "'dead'", "last_error": "'too large'"},
        {"destination": "'mail'", "dedup_key": "repeat('x', 200)"},
        {"destination": "'webhook:1'"},
        {"destination": "'0' || repeat('_', 63)"},
        {"generation": "999999999", "attempt": "999999999", "max_retries": "999999999", "id": "9223372036854775807"},
    ],
)
def test_what_is_within_bounds_is_taken(connection: DbConnection, columns: dict[str, str]) -> None:
    row = {"task": "'t'", "payload": "'{}'", **columns}

    connection.execute(
        f"INSERT INTO outbox ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(row.values())})"
    )


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        *(("outbox_destinations_name_form", {"name": f"E'{name}'"}) for name in MALFORMED_NAMES),
        ("outbox_destinations_open_has_probe_time", {"opened_at": "now()"}),
        ("outbox_destinations_reason_while_paused", {"pause_reason": "'a reason'"}),
        *(
            ("outbox_destinations_rate_in_range", {"max_per_second": f"'{rate}'"})
            for rate in ("0", "-1", "1e-9", "1000001", "infinity", "NaN")
        ),
        ("outbox_destinations_in_flight_range", {"max_in_flight": "0"}),
        ("outbox_destinations_in_flight_range", {"max_in_flight": "1001"}),
        ("outbox_destinations_in_flight_is_object", {"in_flight": "'[]'"}),
    ],
)
def test_an_impossible_destination_is_refused(connection: DbConnection, rule: str, columns: dict[str, str]) -> None:
    row = {"name": "'mail'", **columns}

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(f"INSERT INTO outbox_destinations ({', '.join(row)}) VALUES ({', '.join(row.values())})")

    assert caught.value.diag.constraint_name == rule


def test_a_destination_needs_its_name_alone(connection: DbConnection) -> None:
    connection.execute("INSERT INTO outbox_destinations (name) VALUES ('webhook:1')")
    connection.execute("INSERT INTO outbox_destinations (name, max_per_second) VALUES ('slow', 0.1), ('fast', 1e6)")


def test_a_dedup_key_is_free_again_after_the_first_claim(connection: DbConnection) -> None:
    append = "INSERT INTO outbox (task, payload, dedup_key) VALUES (%s, '{}', 'k')"
    connection.execute(append, ["a"])
    connection.execute(append, ["b"])

    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute(append, ["a"])

    assert caught.value.diag.constraint_name == "outbox_dedup_idx"
    connection.execute("UPDATE outbox SET claimed_at = now() WHERE task = 'a'")
    connection.execute(append, ["a"])


@pytest.mark.parametrize(
    ("constraint", "status", "finished_at", "lease_until"),
    [
        ("outbox_finished_has_finish_time", "done", "NULL", "NULL"),
        ("outbox_finished_status", "dead", "now()", "NULL"),
        ("outbox_finished_holds_no_claim", "discarded", "now()", "now()"),
    ],
)
def test_history_holds_finished_messages_alone(
    connection: DbConnection, constraint: str, status: str, finished_at: str, lease_until: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(
            f"""
            INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                         failures, created_at, finished_at, lease_until)
            VALUES (1, 't', '{{}}', 'default', '{status}', now(), 0, 1, 10, '[]', now(), {finished_at}, {lease_until})
            """
        )

    assert caught.value.diag.constraint_name == constraint


def test_an_address_belongs_to_the_account_that_was_verified_whatever_its_case(connection: DbConnection) -> None:
    insert = "INSERT INTO users (username, email, full_name, hashed_password) VALUES (%s, %s, 'f', 'h')"
    connection.execute(insert, ["a", "Alice@example.com"])
    connection.execute(insert, ["b", "alice@EXAMPLE.com"])
    verify = "UPDATE users SET is_email_verified = true WHERE username = %s"
    connection.execute(verify, ["b"])

    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute(verify, ["a"])

    assert caught.value.diag.constraint_name == "users_email_key"
