"""A signup form that is sent twice is one signup."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.api.accounts.routes.steps import VERIFY, fill_in
from tests.html_page import Page
from tests.programs.api_service import ApiService, api_service


def test_every_form_has_a_key_of_its_own(api: ApiService) -> None:
    pages = [Page(api.client().get("/")), Page(api.client().get("/")), Page(fill_in(api, username="A"))]

    assert [len(page.key) for page in pages] == [22] * 3
    assert len({page.key for page in pages}) == 3


def test_form_that_is_sent_twice_leads_to_the_inbox_page_both_times(api: ApiService) -> None:
    key = Page(api.client().get("/")).key

    sent = [fill_in(api, idempotency_key=key) for _ in range(2)]

    assert [response.status_code for response in sent] == [303, 303]
    # The same cookies, except for the time that one contains.
    cookies = [[each.partition(";")[0] for each in response.headers.getlist("Set-Cookie")] for response in sent]
    assert cookies[0] == cookies[1]
    assert api.messages() == [(VERIFY, "alice")]


def test_form_that_is_sent_again_while_it_is_worked_on_waits_and_leads_to_the_inbox_page(api: ApiService) -> None:
    key = Page(api.client().get("/")).key

    with ThreadPoolExecutor(2) as threads, psycopg.connect(api.database_url) as other:
        other.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('alice', 'x', 'x', 'x')")
        sent = [threads.submit(fill_in, api, idempotency_key=key) for _ in range(2)]
        api.wait_for_a_lock(statements=2)
        other.rollback()
        statuses = [each.result(timeout=10).status_code for each in sent]

    assert statuses == [303, 303]
    assert api.messages() == [(VERIFY, "alice")]


def test_form_that_is_corrected_is_another_request(api: ApiService) -> None:
    key = Page(api.client().get("/")).key
    fill_in(api, idempotency_key=key)

    back = fill_in(api, idempotency_key=key, username="alice2", email="alice2@example.com")

    assert back.status_code == 303
    assert api.messages() == [(VERIFY, "alice"), (VERIFY, "alice2")]


def test_refusal_of_a_form_is_not_kept(api: ApiService) -> None:
    key = Page(api.client().get("/")).key
    fill_in(api, password="another horse")  # noqa: S106 - the tests' own
    refused = fill_in(api, idempotency_key=key)
    api.sql("DELETE FROM users")

    assert [refused.status_code, fill_in(api, idempotency_key=key).status_code] == [409, 303]


def test_form_that_failed_on_our_side_keeps_its_key(api: ApiService) -> None:
    key = Page(api.client().get("/")).key
    with api_service("postgresql://nobody@127.0.0.1:1/none") as broken:
        failed = Page(fill_in(broken, idempotency_key=key))

    assert failed.key == key


def test_two_people_with_one_key_are_two(api: ApiService) -> None:
    key = "0" * 22

    sent = [fill_in(api, idempotency_key=key, username=name, email=f"{name}@x.example") for name in ("ann", "bob")]

    assert [response.status_code for response in sent] == [303, 303]
    assert api.messages() == [(VERIFY, "ann"), (VERIFY, "bob")]


@pytest.mark.parametrize("key", ["", "short", "x" * 65, "\u00e9" * 22, '"' * 22])
def test_form_without_a_key_of_ours_signs_up(api: ApiService, key: str) -> None:
    assert fill_in(api, idempotency_key=key).status_code == 303
    assert api.sql("SELECT 1 FROM idempotency_keys") == []
