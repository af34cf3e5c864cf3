"""Corrections and signups while a mail waits for its limit."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg

from shared.settings.mail_limits import MailLimits
from tests.api.accounts.steps import MALLORY, bearer, correct, let_mails_wait, mailed, state
from tests.programs.api_service import ALICE, KEY, OLD_KEY, ApiService, api_service


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
