"""A request to send the mail again becomes part of a mail that waits for its first claim."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from api.accounts.resend import ANSWER_SECONDS, JOIN_SECONDS
from shared.settings.mail_limits import MailLimits
from tests.api.accounts.steps import MALLORY, RESEND, bearer, correct, let_claim, mailed
from tests.programs.api_service import ALICE, KEY, NO_MAIL_LIMITS, OLD_KEY, ApiService, api_service


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    """The API with Alice signed up, whose mail is due in a minute, and without limits of a mailbox."""
    with api_service(database_url, signup_mail_delay_seconds=60.0, mail_limits=NO_MAIL_LIMITS) as service:
        service.sign_up()
        yield service


def ask(api: ApiService, email: str = ALICE["email"], **body: str) -> None:
    """Send it again, a minute after the last request."""
    api.sql("UPDATE resends SET mailed_at = ARRAY(SELECT mail - interval '61 s' FROM unnest(mailed_at) AS mail)")
    assert api.client().post(RESEND, json={"email": email, **body}).status_code == 202


def requested(api: ApiService) -> list[dict[str, Any]]:
    """Return what is known of the requested mails."""
    return api.sql(
        "SELECT v.message_id = o.id AS is_known, v.state, v.due_at = o.due_at AS agrees, o.due_at <= now() AS is_due"
        " FROM outbox AS o LEFT JOIN verification_mails AS v ON v.message_id = o.id ORDER BY o.id"
    )


def test_it_makes_a_waiting_mail_due(api: ApiService) -> None:
    ask(api)

    assert requested(api) == [{"is_known": True, "state": "prompt", "agrees": True, "is_due": True}]


def test_it_is_a_message_of_its_own_once_the_first_was_claimed(api: ApiService) -> None:
    let_claim(api)
    ask(api)
    ask(api)

    assert mailed(api) == ["alice"] * 2


def test_it_never_becomes_part_of_a_mail_that_a_correction_replaced(api: ApiService) -> None:
    alice = bearer(api.sign_up())
    correct(api, alice)
    correct(api, alice, ALICE["email"])
    ask(api)

    [user] = api.sql("SELECT first_mail_id FROM users")
    due = api.sql("SELECT id FROM outbox WHERE due_at <= now() AND due_at > created_at - interval '1 s' ORDER BY id")
    assert mailed(api) == ["alice"] * 3
    assert due[-1]["id"] == user["first_mail_id"]
    api.sql("DELETE FROM outbox WHERE id = %(id)s", {"id": user["first_mail_id"]})
    ask(api)
    assert api.sql("SELECT max(id) > %(id)s AS is_new FROM outbox", {"id": user["first_mail_id"]}) == [{"is_new": True}]


def test_each_account_of_an_address_has_its_own_mail(api: ApiService) -> None:
    api.sign_up(**MALLORY)
    ask(api, username="alice")
    ask(api, username="mallory")

    assert mailed(api) == ["alice", "mallory"]
    assert [row["is_due"] for row in requested(api)] == [True, True]


def test_it_does_not_become_part_of_a_mail_of_a_deleted_account_of_that_name(api: ApiService) -> None:
    api.sql("DELETE FROM users")
    assert api.sign_up().status_code == 201
    ask(api)

    assert [row["is_due"] for row in requested(api)] == [False, True]


def test_a_key_that_changes_keeps_one_row_of_the_mail(database_url: str, api: ApiService) -> None:
    with api_service(database_url, secret_keys=(OLD_KEY, KEY), mail_limits=NO_MAIL_LIMITS) as rotated:
        ask(rotated)

    assert len(api.sql("SELECT 1 FROM verification_mails")) == 1
    assert requested(api) == [{"is_known": True, "state": "prompt", "agrees": True, "is_due": True}]


def test_a_mail_that_two_requests_are_part_of_counts_once(database_url: str) -> None:
    with api_service(database_url, mail_limits=MailLimits(total_an_hour=100)) as api:
        api.sign_up()
        ask(api)
        counted = api.sql("SELECT sum(mails) AS mails FROM mail_counts")
        let_claim(api)
        ask(api)

        assert counted == [{"mails": 1}]
        assert api.sql("SELECT sum(mails) AS mails FROM mail_counts") == [{"mails": 2}]
        assert len(api.sql("SELECT 1 FROM verification_mails")) == 2


def test_the_relay_s_lock_shows_neither_in_the_answer_nor_in_its_time(api: ApiService) -> None:
    """A relay holds the row while it pushes the job: for seconds if Redis is frozen."""

    def seconds(email: str) -> float:
        begin = time.perf_counter()
        ask(api, email)
        return time.perf_counter() - begin

    seconds("warm-up@example.com")
    with psycopg.connect(api.database_url) as relay:
        relay.execute("SELECT FROM outbox FOR UPDATE")
        known, unknown = [], []
        for number in range(5):
            known.append(seconds(ALICE["email"]))
            unknown.append(seconds(f"nobody{number}@example.com"))
            api.sql("UPDATE outbox SET claimed_at = now() WHERE id > (SELECT min(id) FROM outbox)")

    assert mailed(api) == ["alice"] * 6
    # The fastest of each: this machine may be busy with something else.
    assert min(known + unknown) >= ANSWER_SECONDS
    assert abs(min(known) - min(unknown)) < JOIN_SECONDS
