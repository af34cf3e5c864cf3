"""Passwords and tokens, which show which account is the client's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from werkzeug.test import TestResponse

from api.accounts.signup_tokens.signing import sign_token
from tests.api.accounts.ownership.people import (
    MALLORY,
    OWN,
    PATH,
    bearer,
    browser,
    kind,
    link_for,
    parameters,
    token,
    verified,
)
from tests.html_page import Page
from tests.programs.api_service import ALICE, KEY, OLD_KEY, PAGE, ApiService, api_service

# ---- passwords


def guess(api: ApiService, link: str, *, username: str = "alice", password: str = "a guess") -> TestResponse:  # noqa: S107
    return api.client().post(PATH, json={**parameters(link), "username": username, "password": password})


def test_five_wrong_passwords_end_a_link(contested: ApiService) -> None:
    link, other = link_for(contested, "mallory"), link_for(contested, "alice")
    answers = [guess(contested, link, username=name).status_code for name in ("alice", "nobody", "alice", "bob")]
    answers.append(guess(contested, link, password="\ud800").status_code)  # noqa: S106

    with_the_right_one = [guess(contested, each, password=ALICE["password"]).status_code for each in (link, other)]

    assert (answers, with_the_right_one) == ([403] * 5, [410, 200])


def test_four_wrong_passwords_and_a_right_one_verify(contested: ApiService) -> None:
    link = link_for(contested, "mallory")

    answers = [guess(contested, link).status_code for _ in range(4)]
    answers.append(guess(contested, link, password=ALICE["password"]).status_code)

    assert answers == [403] * 4 + [200]


def test_guesses_at_the_same_moment_are_no_more_tries(contested: ApiService) -> None:
    link = link_for(contested, "mallory")
    start = threading.Barrier(8)

    def at_once(_number: int) -> int:
        start.wait(timeout=10)
        return guess(contested, link).status_code

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(at_once, range(8)))

    assert contested.sql("SELECT wrong_passwords FROM verify_emails") == [{"wrong_passwords": 5}]
    assert guess(contested, link, password=ALICE["password"]).status_code == 410


def test_wrong_password_verifies_no_account_where_one_waits(api: ApiService) -> None:
    api.sign_up(**MALLORY)
    link = link_for(api, "mallory")

    assert guess(api, link, password=ALICE["password"]).status_code == 403
    assert verified(api) == []
    assert api.client().post(link).status_code == 200


def test_half_of_a_login_shows_nothing(contested: ApiService) -> None:
    link = parameters(link_for(contested, "alice"))

    answers = [contested.client().post(PATH, json={**link, name: value}) for name, value in OWN.items()]

    assert [kind(answer) for answer in answers] == [(403, "proof-required")] * 2
    assert verified(contested) == []


def test_account_that_is_named_is_verified_or_none(api: ApiService) -> None:
    api.sign_up(**MALLORY)
    link = parameters(link_for(api, "mallory"))

    answers = [api.client().post(PATH, json={**link, "username": name}).status_code for name in ("alice", "mallory")]

    assert answers == [403, 200]


def test_password_is_not_taken_from_the_query(contested: ApiService) -> None:
    query = "&".join(f"{name}={value}" for name, value in OWN.items())

    response = contested.client().post(f"{link_for(contested, 'alice')}&{query}")

    assert response.status_code == 403
    assert verified(contested) == []


def test_page_keeps_the_username_and_shows_the_error(contested: ApiService) -> None:
    link = link_for(contested, "mallory")

    response = contested.client().post(PATH, data={**parameters(link), **OWN, "password": "wrong"}, headers=PAGE)

    page = Page(response)
    assert response.status_code == 403
    assert (page.fields["username"], page.fields["password"]) == ("alice", "")
    assert "Try again" in page.text


# ---- tokens


def test_token_that_is_not_the_account_s_proves_nothing(contested: ApiService) -> None:
    right, link = token(contested), link_for(contested, "alice")
    wrong = {
        "altered": right[:-1] + ("A" if right[-1] != "A" else "B"),
        "of another key": token(contested, key=OLD_KEY),
        "of another account": right.partition(".")[0] + "." + token(contested, "mallory").partition(".")[2],
        "of another time": sign_token([KEY], "alice", datetime(2020, 1, 1, tzinfo=UTC)),
        "nonsense": "\u00e4.%",
        "empty": "",
    }

    answers = {name: kind(contested.client().post(link, headers=bearer(given))) for name, given in wrong.items()}

    assert answers == dict.fromkeys(wrong, (403, "proof-required"))


def test_token_signed_before_a_new_key_came_first_stays_valid(database_url: str, contested: ApiService) -> None:
    old = token(contested)
    with api_service(database_url, secret_keys=(OLD_KEY, KEY)) as rotated:
        response = rotated.client().post(link_for(contested, "mallory"), headers=bearer(old))

    assert response.status_code == 200


def test_cookie_is_not_used_for_a_form_of_another_site(contested: ApiService) -> None:
    client, link = browser(contested, "alice"), link_for(contested, "mallory")

    response = client.post(link, headers={"Sec-Fetch-Site": "cross-site"})

    assert response.status_code == 403
    assert verified(contested) == []


def test_account_created_at_a_time_that_python_has_not_is_no_reason_to_fail(contested: ApiService) -> None:
    forged = token(contested)
    contested.sql("UPDATE users SET created_at = 'infinity' WHERE username = 'alice'")

    response = contested.client().post(link_for(contested, "mallory"), headers=bearer(forged))

    assert response.status_code == 403
