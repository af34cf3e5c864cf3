import string
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from shared.links import sign
from tests.programs.api_service import ALICE, KEY, OLD_KEY, ApiService, api_service

PATH = "/v1/verify_email"
VERIFY = "task:send_verify_email"
WELCOME = "task:send_welcome_email"
CODE_CHARACTERS = string.ascii_letters + string.digits + "-_"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    """The API with Alice signed up."""
    with api_service(database_url) as service:
        service.sign_up()
        yield service


def welcomes(api: ApiService) -> list[str]:
    return [username for task, username in api.messages() if task == WELCOME]


def used_records(api: ApiService) -> list[int]:
    return [row["id"] for row in api.sql("SELECT id FROM verify_emails WHERE used_at IS NOT NULL ORDER BY id")]


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


def test_no_character_of_a_code_can_be_changed(api: ApiService) -> None:
    record = api.record()
    code = sign([KEY], record, ALICE["email"])
    changed = [
        f"{code[:place]}{CODE_CHARACTERS[(CODE_CHARACTERS.index(character) + 1) % 64]}{code[place + 1 :]}"
        for place, character in enumerate(code)
    ]
    changed += [code[:-1], f"{code}=", f"{code} ", f" {code}", code.swapcase(), "x", "ü", "\x00"]

    statuses = {
        api.client().post(PATH, query_string={"email_id": record, "secret_code": each}).status_code for each in changed
    }

    assert statuses == {404}
    assert not api.is_verified()


def test_code_of_another_record_is_not_valid(api: ApiService) -> None:
    first, second = api.record(), api.record()
    code = sign([KEY], first, ALICE["email"])

    response = api.client().post(PATH, query_string={"email_id": second, "secret_code": code})

    assert response.status_code == 404
    assert not api.is_verified()


def test_code_of_another_user_is_not_valid(api: ApiService) -> None:
    api.sign_up(username="bob", email="bob@example.com")
    record = api.record("bob")

    response = api.client().post(api.link(record, email=ALICE["email"]))

    assert response.status_code == 404
    assert not api.is_verified("bob")


@pytest.mark.parametrize(
    "email_id",
    [
        "0",
        "999",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e0",
        " 1",
        "1 ",
        "1_0",
        "\u0661",
        "one",
        "1;DROP",
        "1\x00",
        "9223372036854775807",
        "9223372036854775808",
        "9" * 20,
        "9" * 3000,
    ],
)
def test_number_of_no_record_is_not_valid(api: ApiService, email_id: str) -> None:
    code = sign([KEY], api.record(), ALICE["email"])

    response = api.client().post(PATH, query_string={"email_id": email_id, "secret_code": code})

    assert (response.status_code, response.mimetype) == (404, "application/problem+json")


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


def test_expiry_is_shown_only_with_the_code(api: ApiService) -> None:
    record = api.record(life="-1 second")

    response = api.client().post(PATH, query_string={"email_id": record, "secret_code": "x" * 43})

    assert response.status_code == 404


def test_answers_to_unknown_and_altered_links_are_the_same(api: ApiService) -> None:
    record = api.record()
    altered = api.client().post(PATH, query_string={"email_id": record, "secret_code": "x" * 43})
    unknown = api.client().post(PATH, query_string={"email_id": record + 1, "secret_code": "x" * 43})

    assert altered.data == unknown.data


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


def test_links_signed_before_a_new_key_came_first_stay_valid(database_url: str) -> None:
    with api_service(database_url, secret_keys=(KEY, OLD_KEY)) as api:
        api.sign_up()
        old, new = api.record(), api.record()

        statuses = [
            api.client().post(api.link(old, key=OLD_KEY)).status_code,
            api.client().post(api.link(new)).status_code,
        ]

    assert statuses == [200, 200]


def test_link_signed_with_a_key_that_is_gone_is_not_valid(api: ApiService) -> None:
    assert api.client().post(api.link(api.record(), key=OLD_KEY)).status_code == 404


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


def test_lone_surrogate_for_a_code_is_not_valid(api: ApiService) -> None:
    response = api.client().post(
        PATH, data=rb'{"email_id": 1, "secret_code": "\ud800"}', content_type="application/json"
    )

    assert response.status_code == 404


def test_answers_are_kept_out_of_caches_and_referers(api: ApiService) -> None:
    link = api.link(api.record())

    for path in (PATH, api.link(999), link):
        headers = api.client().get(path).headers
        assert headers["Vary"] == "Accept"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
