"""The holder of a signup token corrects the address of the account."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg

from tests.api.accounts.steps import MALLORY, RESEND, RIGHT, correct, mailed
from tests.programs.api_service import ALICE, ApiService


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
