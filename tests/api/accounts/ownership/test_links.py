"""A link proves the mailbox. Where several accounts have the address, the person has to show which one is theirs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from embedded.servers.databases import Databases
from embedded.servers.postgres import PostgresServer
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
from tests.api.accounts.steps import welcomes
from tests.html_page import Page
from tests.programs.api_service import ALICE, OLD_KEY, PAGE, ApiService

# ---- whose account is verified


@pytest.mark.parametrize("mailed_for", ["alice", "mallory"])
def test_no_account_is_verified_before_its_owner_names_it(in_either_order: ApiService, mailed_for: str) -> None:
    response = in_either_order.client().post(link_for(in_either_order, mailed_for))

    assert kind(response) == (403, "proof-required")
    assert (verified(in_either_order), welcomes(in_either_order)) == ([], [])
    assert in_either_order.sql("SELECT 1 FROM verify_emails WHERE used_at IS NOT NULL") == []


def test_owner_has_the_mail_sent_again_and_is_verified_by_it_and_the_stranger_never_is(
    in_either_order: ApiService,
) -> None:
    """From the owner's browser, from another one with and without the username, and from a program."""
    api = in_either_order
    resend = {"email": ALICE["email"]}
    owner_s, other, program = browser(api, "alice"), api.client(), api.client()
    methods = {
        "own browser": (owner_s, {"data": resend}, {}),
        "another browser": (other, {"data": resend}, OWN),
        "another browser, with the username": (other, {"data": {**resend, "username": "alice"}}, OWN),
        "program": (program, {"json": resend, "headers": bearer(token(api))}, {}),
    }

    for method, (client, asked, login) in methods.items():
        api.sql("UPDATE users SET is_email_verified = false")
        for table in ("resends", "verification_mails", "verify_emails", "outbox"):
            api.sql(f"DELETE FROM {table}")
        client.post("/inbox" if "data" in asked else f"{PATH}/resend", **asked)
        [(_, mailed_for)] = api.messages()
        link = link_for(api, mailed_for)

        stranger_s = api.client().post(link, json={**parameters(link), "username": "mallory", "password": "a guess"})
        if method == "program":
            client.post(link, headers=bearer(token(api)))
        else:
            page = Page(client.get(link, headers=PAGE))
            client.post(PATH, data={**page.fields, **login}, headers=PAGE)
        too_late = api.client().post(link_for(api, "mallory"), headers=bearer(token(api, "mallory")))

        assert (method, verified(api)) == (method, ["alice"])
        assert (stranger_s.status_code, too_late.status_code) == (403, 410), method
        assert method.startswith("another browser") is bool(login)


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
    """A person who opens an old mail wants the account that it names, not a later one."""
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


def test_link_of_a_freed_name_does_not_verify_its_next_owner(api: ApiService) -> None:
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

    # A used link answers 200 to both, whichever account won.
    assert sorted(statuses) == [200, 410] if links[0] != links[1] else 200 in statuses
    assert len(verified(contested)) == len(welcomes(contested)) == 1
    assert "example.com" not in log_of(postgres).removeprefix(before).lower()


def log_of(postgres: Databases) -> str:
    """Return the log of the tests' own server. A server of someone else is out of reach."""
    return postgres.log_file.read_text() if isinstance(postgres, PostgresServer) else ""


def test_verification_loses_to_one_that_another_service_writes(contested: ApiService) -> None:
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
