import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from argon2 import PasswordHasher, extract_parameters

from api.accounts.signup_tokens.signing import sign_token
from tests.programs.api_service import ALICE, KEY, ApiService, api_service

VERIFY = "task:send_verify_email"


def verify(api: ApiService, username: str) -> None:
    api.sql("UPDATE users SET is_email_verified = true WHERE username = %(name)s", {"name": username})


def test_signup_answers_with_the_user(api: ApiService) -> None:
    response = api.sign_up()

    assert response.status_code == 201
    created_at = datetime.fromisoformat(response.get_json().pop("created_at"))
    assert abs((datetime.now(UTC) - created_at).total_seconds()) < 60
    assert api.sql("SELECT created_at FROM users") == [{"created_at": created_at}]
    assert {
        "username": "alice",
        "full_name": "Alice Adams",
        "email": "alice@example.com",
        "is_email_verified": False,
        "created_at": created_at.isoformat(),
        "signup_token": sign_token([KEY], "alice", created_at),
    } == response.get_json()


def test_signup_leaves_the_user_and_one_critical_message_that_is_due(api: ApiService) -> None:
    api.sign_up()

    [user] = api.sql("SELECT username, full_name, email, is_email_verified FROM users")
    [message] = api.sql("SELECT task, payload, queue, status, attempt, due_at <= now() AS is_due FROM outbox")
    assert user == {
        "username": "alice",
        "full_name": "Alice Adams",
        "email": "alice@example.com",
        "is_email_verified": False,
    }
    assert message == {
        "task": VERIFY,
        "payload": {"username": "alice"},
        "queue": "critical",
        "status": "pending",
        "attempt": 0,
        "is_due": True,
    }


def test_password_is_kept_as_argon2id_at_owasps_first_choice(api: ApiService) -> None:
    api.sign_up()

    [user] = api.sql("SELECT hashed_password FROM users")
    parameters = extract_parameters(user["hashed_password"])
    assert (
        parameters.memory_cost,
        parameters.time_cost,
        parameters.parallelism,
        parameters.type.name,
    ) == (19 * 1024, 2, 1, "ID")
    assert PasswordHasher().verify(user["hashed_password"], ALICE["password"])


def test_first_mail_waits_for_the_configured_delay(database_url: str) -> None:
    with api_service(database_url, signup_mail_delay_seconds=90.5) as api:
        api.sign_up()

        [message] = api.sql("SELECT extract(epoch FROM due_at - created_at)::float AS delay FROM outbox")
        assert 90.5 <= message["delay"] < 95


@pytest.mark.parametrize("full_name", ["שלום עולם", "محمد رضا", "𠮷野家", "🎉 Ünal", "O'Brien; DROP TABLE users"])
def test_name_of_any_script_comes_back_as_it_was_sent(api: ApiService, full_name: str) -> None:
    response = api.sign_up(full_name=full_name)

    assert (201, full_name) == (response.status_code, response.get_json()["full_name"])
    assert [{"full_name": full_name}] == api.sql("SELECT full_name FROM users")


def test_domain_in_another_script_is_stored_in_idna_form(api: ApiService) -> None:
    response = api.sign_up(email="Alice@BÜCHER.test")

    assert response.get_json()["email"] == "Alice@xn--bcher-kva.test"


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"email": "other@example.com"}, ["username"]),
        ({"username": "other"}, ["email"]),
        ({"username": "other", "email": "ALICE@Example.COM"}, ["email"]),
        ({"email": "aLICE@example.com"}, ["username", "email"]),
    ],
)
def test_every_taken_field_is_named(api: ApiService, changes: dict[str, str], taken: list[str]) -> None:
    api.sign_up()
    verify(api, "alice")

    response = api.sign_up(**changes)

    assert (response.status_code, response.mimetype) == (409, "application/problem+json")
    assert taken == [error["field"] for error in response.get_json()["errors"]]
    assert api.messages() == [(VERIFY, "alice")]


def test_fields_taken_by_two_users_are_both_named(api: ApiService) -> None:
    api.sign_up()
    api.sign_up(username="bob", email="bob@example.com")
    verify(api, "bob")

    response = api.sign_up(email="bob@example.com", password="another horse")  # noqa: S106

    assert [error["field"] for error in response.get_json()["errors"]] == ["username", "email"]


def test_conflict_repeats_neither_name_nor_address(api: ApiService) -> None:
    api.sign_up()

    assert "alice" not in api.sign_up(password="another horse").text  # noqa: S106


def test_several_invalid_fields_are_named_at_once_and_leave_nothing(api: ApiService) -> None:
    request = {"username": "Al", "full_name": "\u202eAlice", "email": "a@@b", "password": "short", "role": "admin"}

    response = api.sign_up(**request)

    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert list(dict.fromkeys(error["field"] for error in response.get_json()["errors"])) == [
        "username",
        "full_name",
        "email",
        "password",
        "role",
    ]
    assert api.sql("SELECT 1 FROM users") == []
    assert api.messages() == []


@pytest.mark.parametrize("changes", [{}, {"email": "other@example.com"}])
def test_two_signups_at_the_same_moment_make_one_user_and_one_message(api: ApiService, changes: dict[str, str]) -> None:
    start = threading.Barrier(2)

    def sign_up(number: int) -> int:
        start.wait(timeout=10)
        return api.sign_up(**(changes if number else {})).status_code

    with ThreadPoolExecutor(2) as threads:
        statuses = sorted(threads.map(sign_up, range(2)))

    # The second has the password of the first one's account.
    assert statuses == [200, 201]
    assert len(api.sql("SELECT 1 FROM users")) == 1
    assert len(api.messages()) == 1


def test_signup_that_waited_for_one_that_rolled_back_succeeds(api: ApiService) -> None:
    with ThreadPoolExecutor(1) as thread, psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")
        waiting = thread.submit(api.sign_up)
        api.wait_for_a_lock()
        other.rollback()

        assert waiting.result(timeout=10).status_code == 201


def test_name_held_in_a_transaction_left_open_costs_seconds_and_no_thread(api: ApiService) -> None:
    with psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")

        response = api.sign_up()

        other.rollback()
    assert response.status_code == 503
    assert api.messages() == []
    assert api.sign_up().status_code == 201
