"""Requests with a link: the methods, the forms of a body, and the headers of the answers."""

import pytest

from shared.links import sign
from tests.api.accounts.steps import welcomes
from tests.api.accounts.verification.steps import PATH, used_records
from tests.programs.api_service import ALICE, KEY, OLD_KEY, ApiService


@pytest.mark.parametrize(
    ("query", "missing"),
    [
        ({}, ["email_id", "secret_code"]),
        ({"email_id": "1"}, ["secret_code"]),
        ({"secret_code": "x"}, ["email_id"]),
        ({"email_id": "", "secret_code": ""}, ["email_id", "secret_code"]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_missing_parameter_is_named(
    api: ApiService, method: str, query: dict[str, str], missing: list[str]
) -> None:
    response = api.client().open(PATH, method=method, query_string=query)

    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert [error["field"] for error in response.get_json()["errors"]] == missing


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "*/*"},
        {"Accept": "application/json"},
        {"Accept": "text/html"},
        {"Accept": "*/*", "Sec-Purpose": "prefetch;prerender"},
        {"Accept": "*/*", "Purpose": "prefetch", "Sec-Fetch-Mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_opening_a_link_changes_nothing(api: ApiService, method: str, headers: dict[str, str]) -> None:
    response = api.client().open(api.link(api.record()), method=method, headers=headers)

    assert response.status_code == 200
    assert not api.is_verified()
    assert used_records(api) == []
    assert welcomes(api) == []


def test_get_says_whether_the_link_has_verified_its_address(api: ApiService) -> None:
    link = api.link(api.record())

    before = api.client().get(link)
    api.client().post(link)
    after = api.client().get(link)

    assert (before.status_code, before.get_json()) == (200, {"is_verified": False})
    assert (after.status_code, after.get_json()) == (200, {"is_verified": True})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_opening_a_link_shows_its_state(api: ApiService, method: str) -> None:
    expired = api.link(api.record(life="-1 second"))
    altered = api.link(api.record(), key=OLD_KEY)

    statuses = [api.client().open(link, method=method).status_code for link in (PATH, altered, expired)]

    assert statuses == [422, 404, 410]


@pytest.mark.parametrize("as_number", [True, False])
def test_posted_json_verifies(api: ApiService, as_number: bool) -> None:  # noqa: FBT001 - a parameter of a test
    record = api.record()
    body = {"email_id": record if as_number else str(record), "secret_code": sign([KEY], record, ALICE["email"])}

    response = api.client().post(PATH, json=body)

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})
    assert api.is_verified()


def test_posted_query_verifies(api: ApiService) -> None:
    response = api.client().post(api.link(api.record()))

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})


@pytest.mark.parametrize(
    ("body", "invalid"),
    [
        ({}, ["email_id", "secret_code"]),
        ({"email_id": True, "secret_code": 1}, ["email_id", "secret_code"]),
        ({"email_id": 1.5, "secret_code": "x"}, ["email_id"]),
        ({"email_id": 1, "secret_code": "x", "more": 1}, ["more"]),
    ],
)
def test_posted_json_names_every_invalid_field(api: ApiService, body: dict[str, object], invalid: list[str]) -> None:
    response = api.client().post(PATH, json=body)

    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json()["errors"]] == [f"#/{name}" for name in invalid]


def test_posted_text_is_unsupported(api: ApiService) -> None:
    response = api.client().post(PATH, data="email_id=1", content_type="text/plain")

    assert (response.status_code, response.mimetype) == (415, "application/problem+json")


def test_answers_are_kept_out_of_caches_and_referers(api: ApiService) -> None:
    link = api.link(api.record())

    for path in (PATH, api.link(999), link):
        headers = api.client().get(path).headers
        assert headers["Vary"] == "Accept"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
