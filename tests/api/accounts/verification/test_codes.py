"""Codes of links: none can be guessed, altered or taken from another link."""

import string

import pytest

from shared.links import sign
from tests.api.accounts.verification.steps import PATH
from tests.programs.api_service import ALICE, KEY, OLD_KEY, ApiService, api_service

CODE_CHARACTERS = string.ascii_letters + string.digits + "-_"


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


def test_expiry_is_shown_only_with_the_code(api: ApiService) -> None:
    record = api.record(life="-1 second")

    response = api.client().post(PATH, query_string={"email_id": record, "secret_code": "x" * 43})

    assert response.status_code == 404


def test_answers_to_unknown_and_altered_links_are_the_same(api: ApiService) -> None:
    record = api.record()
    altered = api.client().post(PATH, query_string={"email_id": record, "secret_code": "x" * 43})
    unknown = api.client().post(PATH, query_string={"email_id": record + 1, "secret_code": "x" * 43})

    assert altered.data == unknown.data


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


def test_lone_surrogate_for_a_code_is_not_valid(api: ApiService) -> None:
    response = api.client().post(
        PATH, data=rb'{"email_id": 1, "secret_code": "\ud800"}', content_type="application/json"
    )

    assert response.status_code == 404
