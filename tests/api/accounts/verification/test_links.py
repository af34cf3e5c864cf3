"""What a link verifies: once, in time, and only the address that it was sent to."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.api.accounts.steps import welcomes
from tests.api.accounts.verification.steps import VERIFY, WELCOME, used_records
from tests.programs.api_service import ApiService


def test_link_verifies_the_address_and_asks_for_one_welcome_mail(api: ApiService) -> None:
    record = api.record()

    response = api.client().post(api.link(record))

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})
    assert api.is_verified()
    assert used_records(api) == [record]
    assert api.messages() == [(VERIFY, "alice"), (WELCOME, "alice")]
    assert api.sql("SELECT queue, due_at <= now() AS is_due FROM outbox WHERE task = %(task)s", {"task": WELCOME}) == [
        {"queue": "default", "is_due": True}
    ]


def test_link_used_twice_answers_the_same_and_welcomes_once(api: ApiService) -> None:
    link = api.link(api.record())
    api.client().post(link)

    response = api.client().post(link)

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})
    assert welcomes(api) == ["alice"]


def test_link_used_and_then_expired_answers_the_same(api: ApiService) -> None:
    link = api.link(api.record())
    api.client().post(link)
    api.sql("UPDATE verify_emails SET expires_at = now() - interval '1 day'")

    response = api.client().post(link)

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})


def test_expired_link_is_gone_and_verifies_nothing(api: ApiService) -> None:
    link = api.link(api.record(life="-1 second"))

    response = api.client().post(link)

    assert (response.status_code, response.mimetype) == (410, "application/problem+json")
    assert not api.is_verified()
    assert used_records(api) == []
    assert welcomes(api) == []


def test_second_link_of_a_verified_user_answers_the_same_and_welcomes_once(api: ApiService) -> None:
    first, second = api.record(), api.record()
    api.client().post(api.link(first))

    response = api.client().post(api.link(second))

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})
    assert used_records(api) == [first, second]
    assert welcomes(api) == ["alice"]


@pytest.mark.parametrize("records", [1, 2])
def test_clicks_at_the_same_moment_welcome_once(api: ApiService, records: int) -> None:
    links = [api.link(api.record()) for _ in range(records)]
    start = threading.Barrier(8)

    def click(number: int) -> int:
        start.wait(timeout=10)
        return api.client().post(links[number % records]).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(click, range(8)))

    assert statuses == [200] * 8
    assert welcomes(api) == ["alice"]


def test_address_changed_since_is_not_verified_by_the_old_link(api: ApiService) -> None:
    link = api.link(api.record())
    api.sql("UPDATE users SET email = 'alice@example.org'")

    response = api.client().post(link)

    assert response.status_code == 404
    assert not api.is_verified()
    assert used_records(api) == []


def test_link_that_was_used_says_nothing_of_an_address_changed_since(api: ApiService) -> None:
    link = api.link(api.record())
    api.client().post(link)
    api.sql("UPDATE users SET email = 'alice@example.org', is_email_verified = false")

    assert api.client().post(link).status_code == 404


def test_link_that_was_used_does_not_claim_an_address_that_lost_its_verification(api: ApiService) -> None:
    link = api.link(api.record())
    api.client().post(link)
    api.sql("UPDATE users SET is_email_verified = false")
    api.sql("UPDATE verify_emails SET expires_at = now() - interval '1 day'")

    assert api.client().post(link).status_code == 410
    assert not api.is_verified()


def test_address_changed_while_the_link_is_used_is_not_verified(api: ApiService) -> None:
    link = api.link(api.record())
    with ThreadPoolExecutor(1) as thread, psycopg.connect(api.database_url) as other:
        other.execute("UPDATE users SET email = 'alice@example.org'")
        click = thread.submit(lambda: api.client().post(link).status_code)
        api.wait_for_a_lock()
        other.commit()

        status = click.result(timeout=10)

    assert status == 404
    assert not api.is_verified()
    assert welcomes(api) == []
