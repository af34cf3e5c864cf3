"""What the holder of a signup token may do: see the account's state, change its address, and get a mail again."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from werkzeug.test import TestResponse

from shared.settings.mail_limits import MailLimits
from tests.api.accounts.steps import MALLORY, RIGHT, SIGNUP, let_mails_wait, mailed
from tests.programs.api_service import ALICE, KEY, OLD_KEY, ApiService, api_service

RESEND = "/v1/verify_email/resend"
DONE = """
    WITH gone AS (DELETE FROM outbox WHERE id = %(id)s RETURNING *)
    INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries, failures,
                                 created_at, finished_at)
    SELECT id, task, payload, queue, %(status)s, due_at, generation, 1, max_retries, failures, created_at, now()
      FROM gone
"""


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


@pytest.fixture
def alice(api: ApiService) -> dict[str, str]:
    """Alice has signed up. Returns the header with her token."""
    return bearer(api.sign_up())


def bearer(signup: TestResponse) -> dict[str, str]:
    return {"Authorization": f"Bearer {signup.get_json()['signup_token']}"}


def correct(api: ApiService, headers: dict[str, str], email: str = RIGHT) -> TestResponse:
    return api.client().post(f"{SIGNUP}/email", json={"email": email}, headers=headers)


def state(api: ApiService, headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = api.client().get(SIGNUP, headers=headers).get_json()
    return found


def finish(api: ApiService, message_id: int, status: str = "done") -> None:
    api.sql(DONE, {"id": message_id, "status": status})


# ---- correcting


def test_correction_sets_the_address_and_mails_to_it(api: ApiService, alice: dict[str, str]) -> None:
    response = correct(api, alice)

    [user] = api.sql("SELECT email, first_mail_id, email_set_at, cardinality(corrected_at) AS made FROM users")
    assert response.status_code == 200
    assert response.get_json() == {
        "username": "alice",
        "email": RIGHT,
        "is_email_verified": False,
        "mail": {"state": "pending"},
    }
    assert (user["email"], user["first_mail_id"], user["made"]) == (RIGHT, 2, 1)
    assert abs((user["email_set_at"] - datetime.now(UTC)).total_seconds()) < 60
    assert mailed(api) == ["alice", "alice"]


def test_old_link_is_invalid_and_the_new_one_verifies(api: ApiService, alice: dict[str, str]) -> None:
    old = api.link(api.record())
    correct(api, alice)
    new = api.link(api.record(), email=RIGHT)

    assert [api.client().post(link).status_code for link in (old, new)] == [404, 200]
    assert api.sql("SELECT email FROM users WHERE is_email_verified") == [{"email": RIGHT}]


def test_correction_to_the_same_address_writes_nothing(api: ApiService, alice: dict[str, str]) -> None:
    assert correct(api, alice, ALICE["email"]).status_code == 200
    assert mailed(api) == ["alice"]


def test_address_is_corrected_five_times_a_day(api: ApiService, alice: dict[str, str]) -> None:
    answers = [correct(api, alice, f"alice{number}@example.org") for number in range(6)]
    api.sql("UPDATE users SET corrected_at[1] = now() - interval '1 day 1 second'")

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert 86_300 < int(answers[-1].headers["Retry-After"]) <= 86_400
    assert correct(api, alice).status_code == 200


def test_address_of_a_verified_account_is_taken(api: ApiService, alice: dict[str, str]) -> None:
    api.sign_up(**{**MALLORY, "email": RIGHT})
    api.sql("UPDATE users SET is_email_verified = true WHERE username = 'mallory'")

    response = correct(api, alice, RIGHT.upper())

    assert (response.status_code, [each["field"] for each in response.get_json()["errors"]]) == (409, ["email"])
    assert api.sql("SELECT email FROM users WHERE username = 'alice'") == [{"email": ALICE["email"]}]


def test_verified_account_is_not_corrected(api: ApiService, alice: dict[str, str]) -> None:
    api.client().post(api.link(api.record()))

    assert correct(api, alice).status_code == 409
    assert api.sql("SELECT email FROM users") == [{"email": ALICE["email"]}]


def test_nothing_is_done_without_the_token(api: ApiService, alice: dict[str, str]) -> None:
    assert alice
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        answers = [correct(api, headers), api.client().get(SIGNUP, headers=headers)]
        assert [(answer.status_code, answer.headers["WWW-Authenticate"]) for answer in answers] == [(401, "Bearer")] * 2
    assert mailed(api) == ["alice"]


def test_token_of_a_freed_name_is_invalid(api: ApiService, alice: dict[str, str]) -> None:
    api.sql("DELETE FROM users")
    api.sign_up()

    assert correct(api, alice).status_code == 401
    assert api.client().get(SIGNUP, headers=alice).status_code == 401


def test_token_allows_reading_for_some_days_after_the_verification(api: ApiService, alice: dict[str, str]) -> None:
    api.client().post(api.link(api.record()))
    after = state(api, alice)
    api.sql("UPDATE users SET verified_at = now() - interval '7 days 1 second'")

    assert (after["is_email_verified"], after["mail"]) == (True, {"state": "sent"})
    assert api.client().get(SIGNUP, headers=alice).status_code == 401


def test_corrections_at_the_same_moment_leave_the_newest_mail_to_the_address(
    api: ApiService, alice: dict[str, str]
) -> None:
    start = threading.Barrier(4)

    def at_once(number: int) -> int:
        start.wait(timeout=10)
        return correct(api, alice, f"alice{number}@example.org").status_code

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(at_once, range(4))) == [200] * 4

    [user] = api.sql("SELECT first_mail_id, cardinality(corrected_at) AS made FROM users")
    [newest] = api.sql("SELECT max(id) AS id FROM outbox")
    assert (user["first_mail_id"], user["made"]) == (newest["id"], 4)


def test_correction_waits_for_the_verification_beside_it(api: ApiService, alice: dict[str, str]) -> None:
    with ThreadPoolExecutor(1) as thread, psycopg.connect(api.database_url) as other:
        other.execute("UPDATE users SET is_email_verified = true")
        waiting = thread.submit(correct, api, alice)
        api.wait_for_a_lock()
        other.commit()

        assert waiting.result(timeout=10).status_code == 409
    assert mailed(api) == ["alice"]


def test_resend_beside_a_correction_sends_no_mail_to_the_old_address(api: ApiService, alice: dict[str, str]) -> None:
    with ThreadPoolExecutor(1) as thread, psycopg.connect(api.database_url) as other:
        other.execute("UPDATE users SET email = %s", [RIGHT])
        waiting = thread.submit(lambda: api.client().post(RESEND, json={"email": ALICE["email"]}).status_code)
        api.wait_for_a_lock()
        other.commit()

        assert waiting.result(timeout=10) == 202
    assert mailed(api) == ["alice"]


# ---- what waits for a limit


def test_mail_that_waits_says_until_when_in_full_hours(api: ApiService) -> None:
    let_mails_wait(api, ALICE["email"])

    mail = state(api, bearer(api.sign_up()))["mail"]

    until = datetime.fromisoformat(mail["until"])
    assert mail["state"] == "waiting"
    assert (until.minute, until.second, until.microsecond) == (0, 0, 0)
    assert 0 < (until - datetime.now(UTC)).total_seconds() < 7200


def test_address_that_is_corrected_and_corrected_back_is_mailed(api: ApiService) -> None:
    let_mails_wait(api, ALICE["email"])
    alice = bearer(api.sign_up())

    correct(api, alice)
    back = correct(api, alice, ALICE["email"])

    [user] = api.sql("SELECT first_mail_id FROM users")
    assert back.get_json()["mail"]["state"] == "waiting"
    assert api.sql("SELECT 1 FROM outbox WHERE id = %(id)s AND status = 'pending'", {"id": user["first_mail_id"]}) != []


def test_stranger_who_moves_away_leaves_the_waiting_mail_to_the_owner(api: ApiService) -> None:
    let_mails_wait(api, ALICE["email"])
    mallory = bearer(api.sign_up(**MALLORY))
    alice = bearer(api.sign_up())
    [waiting] = api.sql("SELECT id, due_at FROM outbox WHERE payload->>'username' = 'mallory'")
    assert state(api, alice)["mail"]["state"] == "waiting"

    correct(api, mallory)

    [taken_over] = api.sql("SELECT id, due_at FROM outbox WHERE payload->>'username' = 'alice'")
    [counted] = api.sql("SELECT message_id, client_hmac FROM verification_mails WHERE state = 'waiting'")
    assert (counted["message_id"], counted["client_hmac"] is None) == (taken_over["id"], False)
    assert taken_over["due_at"] == waiting["due_at"]
    assert state(api, alice)["mail"]["state"] == "waiting"


def test_waiting_mail_of_a_former_key_is_shown_and_left_to_the_owner(database_url: str, api: ApiService) -> None:
    let_mails_wait(api, ALICE["email"])
    mallory = bearer(api.sign_up(**MALLORY))
    alice = bearer(api.sign_up())

    with api_service(database_url, secret_keys=(OLD_KEY, KEY)) as rotated:
        before = state(rotated, alice)["mail"]["state"]
        correct(rotated, mallory)
        after = state(rotated, alice)["mail"]["state"]

    assert (before, after) == ("waiting", "waiting")
    assert sorted(mailed(api)) == ["alice", "mallory", "mallory"]


def test_signup_beside_the_correction_of_a_stranger_is_mailed(api: ApiService) -> None:
    let_mails_wait(api, ALICE["email"])
    mallory = bearer(api.sign_up(**MALLORY))
    with ThreadPoolExecutor(2) as threads, psycopg.connect(api.database_url) as other:
        # Delays the signup after the decision that the stranger's mail is enough for it.
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'a', 'a', '!')")
        signup = threads.submit(api.sign_up)
        api.wait_for_a_lock()
        correction = threads.submit(correct, api, mallory)
        api.wait_for_a_lock(statements=2)
        other.rollback()

        assert (signup.result(timeout=10).status_code, correction.result(timeout=10).status_code) == (201, 200)
    assert "alice" in mailed(api)


def test_corrections_within_a_mailbox_bring_it_no_more_mails(database_url: str) -> None:
    """An account that changes its address leaves its place to another account of the old one, and needs a new place."""
    with api_service(database_url, mail_limits=MailLimits(mailbox=6)) as api:
        let_mails_wait(api, ALICE["email"])
        mallory = bearer(api.sign_up(**MALLORY))
        api.sign_up()

        correct(api, mallory, "alice+tag@example.com")

        rows = api.sql("SELECT state, count(*) AS mails FROM verification_mails GROUP BY state")
    assert {row["state"]: row["mails"] for row in rows} == {"prompt": 5, "waiting": 1, "daily": 1, "discarded": 1}


# ---- the state


def test_state_follows_the_mail(api: ApiService, alice: dict[str, str]) -> None:
    states = [state(api, alice)["mail"]]
    api.sql("UPDATE outbox SET attempt = 1, due_at = now() + interval '1 hour'")  # after a failure
    api.record()
    states.append(state(api, alice)["mail"])
    finish(api, 1)
    states.append(state(api, alice)["mail"])
    api.sign_up(**MALLORY)
    api.sql("UPDATE users SET is_email_verified = true WHERE username = 'mallory'")
    states.append(state(api, alice)["mail"])

    assert states == [{"state": "pending"}, {"state": "pending"}, {"state": "sent"}, {"state": "taken"}]


def test_mail_that_was_discarded_was_not_sent(api: ApiService, alice: dict[str, str]) -> None:
    api.record()
    finish(api, 1, "discarded")

    assert state(api, alice)["mail"] == {"state": "pending"}


# ---- sending it again


def test_mail_is_sent_again_to_the_right_account(api: ApiService) -> None:
    alice = bearer(api.sign_up())
    api.sign_up(**MALLORY)
    api.sign_up(username="carol", email="carol@example.com")
    before = mailed(api)

    def asked(email: str, headers: dict[str, str], username: str | None = None) -> list[str]:
        body = {"email": email} if username is None else {"email": email, "username": username}
        api.sql("DELETE FROM resends")
        api.sql("DELETE FROM verification_mails")
        assert api.client().post(RESEND, json=body, headers=headers).status_code == 202
        return mailed(api)[len(before) :]

    whose = [
        asked(ALICE["email"], {})[-1:],
        asked(ALICE["email"], {}, "alice")[-1:],
        asked("ALICE@example.com", {}, "nobody\0\ud800")[-1:],
        asked(ALICE["email"], alice)[-1:],
        asked(ALICE["email"], alice, "mallory")[-1:],
        # An account with another address gets no mail.
        asked("carol@example.com", alice, "alice")[-1:],
    ]

    assert whose == [["mallory"], ["alice"], ["mallory"], ["alice"], ["alice"], ["carol"]]
    assert len(asked("nobody@example.com", alice, "alice")) == len(whose)
