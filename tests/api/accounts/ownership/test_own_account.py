"""Getting an account back by signing up again with its password."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest

from api.accounts.passwords.hashing import hash_password
from api.accounts.signup_tokens.signing import COOKIE
from tests.api.accounts.ownership.people import (
    MALLORY,
    token,
)
from tests.programs.api_service import ALICE, PAGE, ApiService


def test_a_repeated_signup_with_the_password_returns_the_account_and_writes_nothing(contested: ApiService) -> None:
    before = contested.sql("SELECT * FROM users ORDER BY username")

    response = contested.sign_up(full_name="Another Name", email="another@example.org")

    [alice] = [row for row in before if row["username"] == "alice"]
    assert response.status_code == 200
    assert response.get_json() == {
        "username": "alice",
        "full_name": "Alice Adams",
        "email": "alice@example.com",
        "is_email_verified": False,
        "created_at": alice["created_at"].astimezone(UTC).isoformat(),
        "signup_token": token(contested),
    }
    assert contested.sql("SELECT * FROM users ORDER BY username") == before
    assert len(contested.messages()) == 2


def test_account_of_before_is_found_by_a_password_that_is_weak_by_now(contested: ApiService) -> None:
    weak = "password1"
    contested.sql("UPDATE users SET hashed_password = %(hash)s WHERE username = 'alice'", {"hash": hash_password(weak)})

    assert contested.sign_up(password=weak).status_code == 200
    assert contested.sign_up(**{**MALLORY, "password": weak}).status_code == 422


def test_five_wrong_passwords_a_day_are_compared(contested: ApiService) -> None:
    answers = [contested.sign_up(password="a bad guess").status_code for _ in range(5)]  # noqa: S106
    right = contested.sign_up().status_code
    contested.sql("UPDATE users SET wrong_passwords_at[1] = now() - interval '1 day 1 second'")

    assert (answers, right) == ([409] * 5, 409)
    assert contested.sign_up().status_code == 200


def test_wrong_passwords_that_a_clock_counted_in_the_future_are_forgotten(contested: ApiService) -> None:
    contested.sql("UPDATE users SET wrong_passwords_at = array_fill(now() + interval '1 year', ARRAY[5])")

    assert contested.sign_up().status_code == 200


def test_wrong_passwords_at_the_same_moment_are_no_more_tries(contested: ApiService) -> None:
    start = threading.Barrier(8)

    def at_once(_number: int) -> int:
        start.wait(timeout=10)
        return contested.sign_up(password="a bad guess").status_code  # noqa: S106

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(at_once, range(8))) == {409}

    [row] = contested.sql("SELECT wrong_passwords_at FROM users WHERE username = 'alice'")
    assert len(row["wrong_passwords_at"]) == 5


def test_verified_account_and_a_hash_of_another_service_are_refused_alike(contested: ApiService) -> None:
    contested.sql("UPDATE users SET is_email_verified = true WHERE username = 'alice'")
    contested.sql("UPDATE users SET hashed_password = '$2b$12$bcrypt' WHERE username = 'mallory'")

    answers = [contested.sign_up(email="other@example.com"), contested.sign_up(**{**MALLORY, "email": "o@example.com"})]

    assert len({(answer.status_code, answer.data) for answer in answers}) == 1
    assert answers[0].status_code == 409


def test_refusal_costs_the_same_whether_a_password_was_compared_or_not(contested: ApiService) -> None:
    """Measured in CPU time, which other programs on the machine do not lengthen."""
    contested.sql("UPDATE users SET is_email_verified = true WHERE username = 'mallory'")

    def seconds(username: str) -> float:
        contested.sql("UPDATE users SET wrong_passwords_at = '{}'")
        begin = time.thread_time()
        answer = contested.sign_up(username=username, email="other@example.com", password="a bad guess")  # noqa: S106
        taken = time.thread_time() - begin
        assert answer.status_code == 409
        return taken

    seconds("alice")
    compared, not_compared = (statistics.median(seconds(name) for _ in range(5)) for name in ("alice", "mallory"))
    assert not_compared == pytest.approx(compared, rel=0.4)


def test_repeated_key_gives_the_same_token(api: ApiService) -> None:
    headers = {"Idempotency-Key": "a-key-of-my-own"}

    answers = [api.client().post("/v1/users", json=ALICE, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()
    [kept] = api.sql("SELECT outcome::text AS text FROM idempotency_keys")
    assert answers[0].get_json()["signup_token"] not in kept["text"]


def test_form_that_is_filled_in_again_leads_back_to_the_account(api: ApiService) -> None:
    first, second = (api.client().post("/", data=ALICE, headers=PAGE) for _ in range(2))

    cookies = [response.headers.getlist("Set-Cookie")[-1].split("; ") for response in (first, second)]
    assert (first.status_code, second.status_code) == (303, 303)
    assert cookies[0][0] == cookies[1][0] == f"{COOKIE}={token(api)}"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookies[0])
    assert "Secure" not in cookies[0]
    assert api.messages() == [("task:send_verify_email", "alice")]
