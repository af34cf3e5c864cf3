"""Idempotency-Key on POST /v1/users: the signup runs once, and each repetition gets the same response."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from werkzeug.test import TestResponse

from tests.programs.api_service import ALICE, KEY, OLD_KEY, ApiService, api_service

NAME = '"8e03978e-40d5-43e8-bc93-6894a57f9324"'
VERIFY = "task:send_verify_email"


def send(api: ApiService, key: str = NAME, **changes: object) -> TestResponse:
    return api.client().post("/v1/users", json={**ALICE, **changes}, headers={"Idempotency-Key": key})


def send_from(api: ApiService, address: str, **changes: object) -> TestResponse:
    body = {**ALICE, **changes}
    return api.client().post(
        "/v1/users", json=body, headers={"Idempotency-Key": "1"}, environ_base={"REMOTE_ADDR": address}
    )


def said(response: TestResponse) -> tuple[int, str | None, bytes]:
    return response.status_code, response.mimetype, response.data


def test_repeated_signup_gets_the_first_answer_and_changes_nothing(api: ApiService) -> None:
    first, second = send(api), send(api)

    assert first.status_code == 201
    assert said(second) == said(first)
    assert api.messages() == [(VERIFY, "alice")]


def test_answer_stays_as_it_was_when_the_user_has_changed_since(api: ApiService) -> None:
    first = send(api)
    api.sql("UPDATE users SET is_email_verified = true, full_name = 'Somebody'")

    assert said(send(api)) == said(first)


def test_refusal_is_repeated_too(api: ApiService) -> None:
    api.sign_up()
    first = send(api, password="another horse")  # noqa: S106
    api.sql("DELETE FROM users")

    second = send(api, password="another horse")  # noqa: S106

    assert first.status_code == 409
    assert said(second) == said(first)


@pytest.mark.parametrize("changes", [{"password": "another horse"}, {"username": "bob"}])
def test_same_key_with_another_body_is_refused_and_changes_nothing(api: ApiService, changes: dict[str, str]) -> None:
    send(api)

    response = send(api, **changes)

    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert "another body" in response.get_json()["detail"]
    assert len(api.sql("SELECT 1 FROM users")) == 1


def test_order_of_the_fields_makes_no_other_body(api: ApiService) -> None:
    first = send(api)

    second = api.client().post(
        "/v1/users", json=dict(reversed(ALICE.items())), headers={"Idempotency-Key": NAME.strip('"')}
    )

    assert said(second) == said(first)


def test_key_in_flight_is_refused_and_free_again_afterwards(api: ApiService) -> None:
    with ThreadPoolExecutor(1) as thread, psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")
        waiting = thread.submit(send, api)
        api.wait_for_a_lock()

        meanwhile = send(api)

        other.rollback()
        first = waiting.result(timeout=10)
    assert (meanwhile.status_code, meanwhile.headers["Retry-After"]) == (409, "1")
    assert first.status_code == 201
    assert said(send(api)) == said(first)


def test_same_request_at_the_same_moment_is_carried_out_once(api: ApiService) -> None:
    start = threading.Barrier(4)

    def at_once(_number: int) -> int:
        start.wait(timeout=10)
        return send(api).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(at_once, range(4)))

    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert api.messages() == [(VERIFY, "alice")]
    assert len(api.sql("SELECT 1 FROM idempotency_keys")) == 1


def test_signup_that_did_not_commit_leaves_no_key(api: ApiService) -> None:
    with psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")
        first = send(api)
        other.rollback()

    assert first.status_code == 503
    assert api.sql("SELECT 1 FROM idempotency_keys") == []
    assert send(api).status_code == 201


def test_key_is_forgotten_after_a_day(api: ApiService) -> None:
    send(api)
    api.sql("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")

    response = send(api, username="bob", email="bob@example.com")

    assert response.status_code == 201
    assert len(api.sql("SELECT 1 FROM idempotency_keys")) == 1


def test_keys_past_their_day_are_deleted_by_the_next_signups(api: ApiService) -> None:
    api.sql(
        "INSERT INTO idempotency_keys (key, body_hmac, outcome, created_at)"
        " SELECT n::text, decode(repeat('00', 32), 'hex'), '{}', now() - make_interval(hours => n)"
        " FROM generate_series(1, 50) AS n"
    )

    send(api)
    send(api, '"another"', username="bob", email="bob@example.com")

    rows = api.sql("SELECT key FROM idempotency_keys WHERE key ~ '^[0-9]+$' ORDER BY key::int")
    assert [row["key"] for row in rows] == [str(number) for number in range(1, 24)]


def test_what_is_kept_holds_neither_password_nor_body(api: ApiService) -> None:
    send(api)

    [row] = api.sql("SELECT idempotency_keys::text AS text FROM idempotency_keys")
    assert ALICE["password"] not in row["text"]
    assert ALICE["password"].encode().hex() not in row["text"]
    assert "argon2" not in row["text"]


def test_key_holds_while_secret_keys_change(database_url: str) -> None:
    with api_service(database_url, secret_keys=(OLD_KEY,)) as before:
        first = send(before)
    with api_service(database_url, secret_keys=(KEY, OLD_KEY)) as after:
        second = send(after)

    # The token is signed again, because it is not stored.
    assert second.status_code == 201
    assert {**second.get_json(), "signup_token": ""} == {**first.get_json(), "signup_token": ""}


BOB = {"username": "bob", "email": "bob@example.com"}


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [("203.0.113.8", "203.0.113.9"), ("2001:db8::1", "2001:db8:0:1::1"), ("203.0.113.8", ""), ("", "")],
)
def test_key_of_a_stranger_is_another_one(api: ApiService, mine: str, theirs: str) -> None:
    first = send_from(api, mine)

    stranger = send_from(api, theirs, **BOB)

    assert [first.status_code, stranger.status_code] == [201, 201]
    assert [said(send_from(api, mine)), said(send_from(api, theirs, **BOB))] == [said(first), said(stranger)]
    assert api.messages() == [(VERIFY, "alice"), (VERIFY, "bob")]


def test_key_of_a_stranger_is_another_one_behind_a_proxy_that_nothing_believes(api: ApiService) -> None:
    keys = {"Idempotency-Key": "1"}
    statuses = [
        api.client()
        .post("/v1/users", json={**ALICE, **changes}, headers={**keys, "X-Forwarded-For": address})
        .status_code
        for address, changes in (("203.0.113.8", {}), ("203.0.113.9", BOB), ("203.0.113.8", {}))
    ]

    assert statuses == [201] * 3
    assert api.messages() == [(VERIFY, "alice"), (VERIFY, "bob")]


def test_key_of_a_stranger_is_not_waited_for(api: ApiService) -> None:
    with ThreadPoolExecutor(1) as thread, psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")
        waiting = thread.submit(send_from, api, "203.0.113.8")
        api.wait_for_a_lock()

        stranger = send_from(api, "203.0.113.9", **BOB)

        other.rollback()
        waiting.result(timeout=10)
    assert stranger.status_code == 201


@pytest.mark.parametrize(("mine", "also_mine"), [("2001:db8::1", "2001:db8::2"), ("203.0.113.8", "::ffff:203.0.113.8")])
def test_key_counts_for_all_addresses_of_a_client(api: ApiService, mine: str, also_mine: str) -> None:
    first = send_from(api, mine)

    assert said(send_from(api, also_mine)) == said(first)


def test_what_is_kept_names_neither_the_network_nor_the_key(api: ApiService) -> None:
    send_from(api, "203.0.113.8")

    [row] = api.sql("SELECT key FROM idempotency_keys")
    assert len(bytes.fromhex(row["key"])) == 32


@pytest.mark.parametrize("key", ["", '""', '"', '"open', "two words", '"a"b"', '"\\""', "x" * 256, '"\u00e9"'])
def test_malformed_key_is_refused(api: ApiService, key: str) -> None:
    response = send(api, key)

    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert api.messages() == []


@pytest.mark.parametrize("key", ['"two words!"', "x" * 255, f'"{"~" * 255}"', "a"])
def test_key_of_any_printable_characters_is_taken(api: ApiService, key: str) -> None:
    assert [send(api, key).status_code, send(api, key).status_code] == [201, 201]


def test_invalid_body_uses_no_key_up(api: ApiService) -> None:
    assert send(api, username="A").status_code == 422
    assert send(api).status_code == 201


def test_signup_without_a_key_keeps_nothing(api: ApiService) -> None:
    api.sign_up()

    assert api.sql("SELECT 1 FROM idempotency_keys") == []
