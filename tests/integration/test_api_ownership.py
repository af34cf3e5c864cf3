"""Who owns an address: strangers sign up with it before and after its owner, who gets an account of their own."""

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.passwords import hash_password
from api.signup_tokens import COOKIE, sign_token
from embedded.databases import Databases
from embedded.postgres import PostgresServer
from tests.api_service import ALICE, KEY, OLD_KEY, PAGE, ApiService, api_service
from tests.html_page import Page

PATH = "/v1/verify_email"
MALLORY = {**ALICE, "username": "mallory", "full_name": "Mallory", "password": "what mallory chose"}
OWN = {"username": "alice", "password": ALICE["password"]}


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


@pytest.fixture
def contested(api: ApiService) -> ApiService:
    """The owner and then a stranger have signed up with one address."""
    for person in (ALICE, {**MALLORY, "email": "Alice@Example.com"}):
        assert api.sign_up(**person).status_code == 201
    return api


@pytest.fixture(params=["before", "after"])
def in_either_order(request: pytest.FixtureRequest, api: ApiService) -> ApiService:
    """The same, whoever came first."""
    people = [ALICE, {**MALLORY, "email": "Alice@Example.com"}]
    for person in people if request.param == "after" else reversed(people):
        assert api.sign_up(**person).status_code == 201
    return api


def token(api: ApiService, username: str = "alice", *, key: str = KEY) -> str:
    [row] = api.sql("SELECT created_at FROM users WHERE username = %(name)s", {"name": username})
    return sign_token([key], username, row["created_at"])


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def link_for(api: ApiService, username: str) -> str:
    """Return a link that was mailed for this account."""
    [row] = api.sql("SELECT email FROM users WHERE username = %(name)s", {"name": username})
    return api.link(api.record(username), email=row["email"])


def browser(api: ApiService, username: str | None = None) -> FlaskClient:
    """Return a browser, with the cookie of the one who signed up in it."""
    client = api.client()
    if username is not None:
        client.set_cookie(COOKIE, token(api, username))
    return client


def verified(api: ApiService) -> list[str]:
    return [row["username"] for row in api.sql("SELECT username FROM users WHERE is_email_verified ORDER BY 1")]


def welcomes(api: ApiService) -> list[str]:
    return [username for task, username in api.messages() if task == "task:send_welcome_email"]


def kind(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["type"]


# ---- whose account is meant


@pytest.mark.parametrize("mailed_for", ["alice", "mallory"])
def test_nobody_is_verified_before_somebody_says_who_is_meant(in_either_order: ApiService, mailed_for: str) -> None:
    response = in_either_order.client().post(link_for(in_either_order, mailed_for))

    assert kind(response) == (403, "proof-required")
    assert (verified(in_either_order), welcomes(in_either_order)) == ([], [])
    assert in_either_order.sql("SELECT 1 FROM verify_emails WHERE used_at IS NOT NULL") == []


@pytest.mark.parametrize("mailed_for", ["alice", "mallory"])
def test_owner_is_verified_in_the_browser_of_the_signup(in_either_order: ApiService, mailed_for: str) -> None:
    client, link = browser(in_either_order, "alice"), link_for(in_either_order, mailed_for)
    page = Page(client.get(link, headers=PAGE))

    response = client.post(PATH, data=page.fields, headers=PAGE)

    assert "alice" in page.text
    assert "mallory" not in page.text
    assert response.status_code == 200
    assert (verified(in_either_order), welcomes(in_either_order)) == (["alice"], ["alice"])


def test_owner_is_verified_in_another_browser_with_username_and_password(contested: ApiService) -> None:
    mailed_for = "mallory"
    client, link = contested.client(), link_for(contested, mailed_for)
    page = Page(client.get(link, headers=PAGE))
    asked = Page(client.post(PATH, data={**page.fields, "username": "", "password": ""}, headers=PAGE))

    response = client.post(PATH, data={**asked.fields, **OWN}, headers=PAGE)

    assert [found.fields["username"] for found in (page, asked)] == [mailed_for] * 2
    assert response.status_code == 200
    assert (verified(contested), welcomes(contested)) == (["alice"], ["alice"])


@pytest.mark.parametrize(("mailed_for", "proof"), [("alice", "login"), ("mallory", "token")])
def test_owner_is_verified_by_a_program(contested: ApiService, mailed_for: str, proof: str) -> None:
    link, client = link_for(contested, mailed_for), contested.client()

    if proof == "token":
        response = client.post(link, headers=bearer(token(contested)))
    else:
        response = client.post(link, json={**parameters(link), **OWN})

    assert (response.status_code, response.get_json()) == (200, {"is_verified": True})
    assert verified(contested) == ["alice"]


def parameters(link: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in link.partition("?")[2].split("&"))


def test_stranger_without_the_mailbox_is_verified_by_nothing(contested: ApiService) -> None:
    forged = contested.link(contested.record("alice"), key=OLD_KEY)
    response = contested.client().post(
        PATH, json={**parameters(forged), **{name: MALLORY[name] for name in ("username", "password")}}
    )

    assert response.status_code == 404
    assert verified(contested) == []


def test_stranger_stays_without_the_address_for_good(contested: ApiService) -> None:
    theirs = link_for(contested, "mallory")
    contested.client().post(link_for(contested, "alice"), headers=bearer(token(contested)))

    answers = [
        contested.client().post(theirs),
        contested.client().post(theirs, headers=bearer(token(contested, "mallory"))),
        contested.client().get(theirs),
    ]

    assert [answer.status_code for answer in answers] == [410] * 3
    assert "Another account" in contested.client().get(theirs, headers=PAGE).text
    assert verified(contested) == ["alice"]


def test_link_that_was_used_answers_the_same_without_a_proof(contested: ApiService) -> None:
    link = link_for(contested, "mallory")
    contested.client().post(link, headers=bearer(token(contested)))
    contested.sql("UPDATE verify_emails SET expires_at = now() - interval '1 day'")

    assert contested.client().post(link).get_json() == {"is_verified": True}
    assert welcomes(contested) == ["alice"]


def test_opening_the_link_changes_nothing_and_asks_for_the_proof(contested: ApiService) -> None:
    link = link_for(contested, "mallory")

    for headers in ({}, bearer(token(contested)), PAGE):
        response = browser(contested, "alice").get(link, headers=headers)
        assert response.status_code == 200
    assert contested.client().get(link).get_json() == {"is_verified": False}

    assert verified(contested) == []


# ---- the account that a link was made for has moved


def test_link_whose_account_has_moved_verifies_no_other_one_unasked(api: ApiService) -> None:
    """Somebody who opens an old mail means the account that it names, not the one that came later."""
    api.sign_up()
    link = link_for(api, "alice")
    api.sql("UPDATE users SET email = 'alice@example.org' WHERE username = 'alice'")
    api.sign_up(**MALLORY)

    assert kind(api.client().post(link)) == (403, "proof-required")
    assert kind(api.client().post(link, headers=bearer(token(api)))) == (403, "proof-required")
    assert verified(api) == []


def test_owner_can_use_the_link_of_a_stranger_who_has_moved(api: ApiService) -> None:
    api.sign_up(**MALLORY)
    link = link_for(api, "mallory")
    api.sql("UPDATE users SET email = 'mallory@example.org'")
    api.sign_up()

    response = api.client().post(link, headers=bearer(token(api)))

    assert (response.status_code, verified(api)) == (200, ["alice"])


def test_link_of_a_freed_name_is_worth_nothing_to_whoever_takes_the_name(api: ApiService) -> None:
    api.sign_up()
    link, old = link_for(api, "alice"), token(api)
    api.sql("DELETE FROM users")
    api.sign_up(password="somebody else's")  # noqa: S106

    assert api.client().post(link, headers=bearer(old)).status_code == 404
    assert verified(api) == []


def test_button_verifies_the_account_that_its_page_has_named_or_none(api: ApiService) -> None:
    api.sign_up()
    link = link_for(api, "alice")
    page = Page(api.client().get(link, headers=PAGE))
    api.sign_up(**MALLORY)
    api.sql("UPDATE verify_emails SET username = 'mallory'")
    api.sql("UPDATE users SET email = 'alice@example.org' WHERE username = 'alice'")

    response = api.client().post(PATH, data=page.fields, headers=PAGE)

    assert (response.status_code, verified(api)) == (403, [])


def test_proof_of_an_account_that_vanishes_meanwhile_verifies_no_other_one(contested: ApiService) -> None:
    link, proof = link_for(contested, "mallory"), bearer(token(contested))
    with ThreadPoolExecutor(1) as thread, psycopg.connect(contested.database_url) as other:
        other.execute("DELETE FROM users WHERE username = 'alice'")
        click = thread.submit(lambda: contested.client().post(link, headers=proof).status_code)
        contested.wait_for_a_lock()
        other.commit()
        status = click.result(timeout=10)

    assert (status, verified(contested)) == (403, [])


def test_link_of_a_stranger_that_was_used_outlives_the_stranger(contested: ApiService) -> None:
    link = link_for(contested, "mallory")
    contested.client().post(link, headers=bearer(token(contested)))
    contested.sql("DELETE FROM users WHERE username = 'mallory'")

    assert contested.client().post(link).get_json() == {"is_verified": True}


def test_a_database_before_its_migration_refuses_a_second_account_of_an_address(api: ApiService) -> None:
    api.sql("DROP INDEX users_email_key; CREATE UNIQUE INDEX users_email_key ON users (lower(email))")
    api.sign_up()

    response = api.sign_up(**MALLORY)

    assert (response.status_code, [each["field"] for each in response.get_json()["errors"]]) == (409, ["email"])


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


def test_wrong_password_verifies_nobody_where_one_account_waits(api: ApiService) -> None:
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


def test_page_keeps_the_username_and_tells_that_it_was_wrong(contested: ApiService) -> None:
    link = link_for(contested, "mallory")

    response = contested.client().post(PATH, data={**parameters(link), **OWN, "password": "wrong"}, headers=PAGE)

    page = Page(response)
    assert response.status_code == 403
    assert (page.fields["username"], page.fields["password"]) == ("alice", "")
    assert "try again" in page.text


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


# ---- at the same moment


@pytest.mark.parametrize("links", [["alice", "mallory"], ["mallory", "mallory"]])
def test_two_verifications_at_once_end_with_one_winner_and_nothing_in_the_log(
    postgres: Databases, contested: ApiService, links: list[str]
) -> None:
    before = log_of(postgres)
    paths = [link_for(contested, name) for name in links]
    proofs = [bearer(token(contested, name)) for name in ("alice", "mallory")]
    start = threading.Barrier(2)

    def click(number: int) -> int:
        start.wait(timeout=10)
        return contested.client().post(paths[number], headers=proofs[number]).status_code

    with ThreadPoolExecutor(2) as threads:
        statuses = list(threads.map(click, range(2)))

    # A link that was used answers 200 to both, whoever won.
    assert sorted(statuses) == [200, 410] if links[0] != links[1] else 200 in statuses
    assert len(verified(contested)) == len(welcomes(contested)) == 1
    assert "example.com" not in log_of(postgres).removeprefix(before).lower()


def log_of(postgres: Databases) -> str:
    """Return the log of the tests' own server; somebody else's is out of reach."""
    return postgres.log_file.read_text() if isinstance(postgres, PostgresServer) else ""


def test_verification_beside_one_that_another_service_writes_is_told_that_it_lost(contested: ApiService) -> None:
    link, proof = link_for(contested, "alice"), bearer(token(contested))
    with ThreadPoolExecutor(1) as thread, psycopg.connect(contested.database_url) as other:
        other.execute("UPDATE users SET is_email_verified = true WHERE username = 'mallory'")
        click = thread.submit(lambda: contested.client().post(link, headers=proof).status_code)
        contested.wait_for_a_lock()
        other.commit()

        assert click.result(timeout=10) == 410
    assert verified(contested) == ["mallory"]


def test_two_people_sign_up_with_one_address_at_the_same_moment(api: ApiService) -> None:
    start = threading.Barrier(2)

    def sign_up(person: dict[str, str]) -> int:
        start.wait(timeout=10)
        return api.sign_up(**person).status_code

    with ThreadPoolExecutor(2) as threads:
        statuses = list(threads.map(sign_up, (ALICE, MALLORY)))

    assert statuses == [201, 201]
    assert sorted(name for _, name in api.messages()) == ["alice", "mallory"]


def test_address_is_taken_once_it_is_verified(contested: ApiService) -> None:
    contested.client().post(link_for(contested, "alice"), headers=bearer(token(contested)))

    response = contested.sign_up(username="eve", email="ALICE@example.com")

    assert (response.status_code, [each["field"] for each in response.get_json()["errors"]]) == (409, ["email"])


# ---- the way back to one's own account


def test_whoever_signs_up_again_with_the_password_gets_the_account_and_writes_nothing(contested: ApiService) -> None:
    before = contested.sql("SELECT * FROM users ORDER BY username")

    response = contested.sign_up(full_name="Another Name", email="another@example.org")

    [alice] = [row for row in before if row["username"] == "alice"]
    assert response.status_code == 200
    assert response.get_json() == {
        "username": "alice",
        "full_name": "Alice Adams",
        "email": "alice@example.com",
        "is_email_verified": False,
        "created_at": alice["created_at"].astimezone(UTC).isoformat(),
        "signup_token": token(contested),
    }
    assert contested.sql("SELECT * FROM users ORDER BY username") == before
    assert len(contested.messages()) == 2


def test_account_of_before_is_found_by_a_password_that_is_weak_by_now(contested: ApiService) -> None:
    weak = "password1"
    contested.sql("UPDATE users SET hashed_password = %(hash)s WHERE username = 'alice'", {"hash": hash_password(weak)})

    assert contested.sign_up(password=weak).status_code == 200
    assert contested.sign_up(**{**MALLORY, "password": weak}).status_code == 422


def test_five_wrong_passwords_a_day_are_compared(contested: ApiService) -> None:
    answers = [contested.sign_up(password="a bad guess").status_code for _ in range(5)]  # noqa: S106
    right = contested.sign_up().status_code
    contested.sql("UPDATE users SET wrong_passwords_at[1] = now() - interval '1 day 1 second'")

    assert (answers, right) == ([409] * 5, 409)
    assert contested.sign_up().status_code == 200


def test_wrong_passwords_that_a_clock_counted_in_the_future_are_forgotten(contested: ApiService) -> None:
    contested.sql("UPDATE users SET wrong_passwords_at = array_fill(now() + interval '1 year', ARRAY[5])")

    assert contested.sign_up().status_code == 200


def test_wrong_passwords_at_the_same_moment_are_no_more_tries(contested: ApiService) -> None:
    start = threading.Barrier(8)

    def at_once(_number: int) -> int:
        start.wait(timeout=10)
        return contested.sign_up(password="a bad guess").status_code  # noqa: S106

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(at_once, range(8))) == {409}

    [row] = contested.sql("SELECT wrong_passwords_at FROM users WHERE username = 'alice'")
    assert len(row["wrong_passwords_at"]) == 5


def test_verified_account_and_a_hash_of_another_service_are_refused_alike(contested: ApiService) -> None:
    contested.sql("UPDATE users SET is_email_verified = true WHERE username = 'alice'")
    contested.sql("UPDATE users SET hashed_password = '$2b$12$bcrypt' WHERE username = 'mallory'")

    answers = [contested.sign_up(email="other@example.com"), contested.sign_up(**{**MALLORY, "email": "o@example.com"})]

    assert len({(answer.status_code, answer.data) for answer in answers}) == 1
    assert answers[0].status_code == 409


def test_refusal_costs_the_same_whether_a_password_was_compared_or_not(contested: ApiService) -> None:
    """In time of the processor, which other programs on the machine do not lengthen as they do that of the clock."""
    contested.sql("UPDATE users SET is_email_verified = true WHERE username = 'mallory'")

    def seconds(username: str) -> float:
        contested.sql("UPDATE users SET wrong_passwords_at = '{}'")
        begin = time.thread_time()
        answer = contested.sign_up(username=username, email="other@example.com", password="a bad guess")  # noqa: S106
        taken = time.thread_time() - begin
        assert answer.status_code == 409
        return taken

    seconds("alice")
    compared, not_compared = (statistics.median(seconds(name) for _ in range(5)) for name in ("alice", "mallory"))
    assert not_compared == pytest.approx(compared, rel=0.4)


def test_repeated_key_gives_the_same_token(api: ApiService) -> None:
    headers = {"Idempotency-Key": "a-key-of-my-own"}

    answers = [api.client().post("/v1/users", json=ALICE, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()
    [kept] = api.sql("SELECT outcome::text AS text FROM idempotency_keys")
    assert answers[0].get_json()["signup_token"] not in kept["text"]


def test_form_that_is_filled_in_again_leads_back_to_the_account(api: ApiService) -> None:
    first, second = (api.client().post("/", data=ALICE, headers=PAGE) for _ in range(2))

    cookies = [response.headers.getlist("Set-Cookie")[-1].split("; ") for response in (first, second)]
    assert (first.status_code, second.status_code) == (303, 303)
    assert cookies[0][0] == cookies[1][0] == f"{COOKIE}={token(api)}"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookies[0])
    assert "Secure" not in cookies[0]
    assert api.messages() == [("task:send_verify_email", "alice")]
