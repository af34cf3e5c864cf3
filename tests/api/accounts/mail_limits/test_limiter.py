"""How many mails one mailbox gets, for any clients and any number of processes."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from api.accounts.mail_limits.scheduling import NO_ROOM, ONE_WAITS
from shared.settings.mail_limits import MailLimits
from tests.api.accounts.steps import let_claim
from tests.programs.api_service import ALICE, KEY, NO_MAIL_LIMITS, OLD_KEY, ApiService, api_service

RESEND = "/v1/verify_email/resend"
STRANGER, OWNER = "203.0.113.8", "2001:db8:0:1::7"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url, trusted_proxies=1) as service:
        yield service


def sign_up(api: ApiService, number: int, email: str, client: str = STRANGER, **more: Any) -> Any:
    person = {**ALICE, "username": f"user_{number}", "email": email, **more}
    return api.client().post("/v1/users", json=person, headers={"X-Forwarded-For": client})


def ask_again(api: ApiService, email: str, client: str = STRANGER) -> int:
    return api.client().post(RESEND, json={"email": email}, headers={"X-Forwarded-For": client}).status_code


def due(api: ApiService) -> Counter[str]:
    """Return the number of live messages by due time."""
    rows = api.sql(
        "SELECT CASE WHEN due_at <= now() THEN 'now' WHEN due_at < now() + interval '1 day' THEN 'within a day'"
        " ELSE 'later' END AS at FROM outbox"
    )
    return Counter(row["at"] for row in rows)


def reasons(api: ApiService) -> Counter[str]:
    return Counter(row["last_error"] for row in api.sql("SELECT last_error FROM outbox_finished"))


def forget_the_minute(api: ApiService) -> None:
    """Act as if a minute had passed since the last mail to each address, and a worker had claimed it."""
    let_claim(api)
    api.sql("UPDATE resends SET mailed_at = ARRAY(SELECT m - interval '61 s' FROM unnest(mailed_at) AS m)")


def test_an_attack_on_a_mailbox_ends_with_the_allowed_mails_and_its_answers_show_nothing(api: ApiService) -> None:
    answers = [sign_up(api, number, f"victim+{number}@example.com") for number in range(16)]
    again = [ask_again(api, f"victim+{number}@example.com") for number in (0, 5, 15)]

    # One client gets three at once and two an hour later; beyond that one a day, and every second day stays free.
    assert (due(api)["now"], due(api)["within a day"]) == (3, 3)
    assert due(api)["later"] <= 6
    assert set(reasons(api)) == {f"discarded: {NO_ROOM}", f"discarded: {ONE_WAITS}"}
    assert set(again) == {202}
    states = {row["state"] for row in api.sql("SELECT state FROM verification_mails")}
    assert states == {"prompt", "waiting", "daily", "discarded"}
    shown = [{**answer.get_json(), "username": 0, "email": 0, "created_at": 0, "signup_token": 0} for answer in answers]
    assert [each for each in shown if each != shown[0]] == []
    assert len({(answer.status, tuple(answer.headers.keys())) for answer in answers}) == 1


def test_a_stranger_does_not_use_up_the_owner_s_mails(api: ApiService) -> None:
    for number in range(6):
        sign_up(api, number, f"victim+{number}@example.com")

    sign_up(api, 99, "Victim@example.com", OWNER)

    [row] = api.sql("SELECT due_at <= now() AS is_due FROM outbox WHERE payload ->> 'username' = 'user_99'")
    assert row == {"is_due": True}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a@example.com", "A+tag@Example.com"),
        ("j.doe@gmail.com", "jdoe+x@googlemail.com"),
    ],
)
def test_addresses_of_one_mailbox_share_its_limits(api: ApiService, one: str, other: str) -> None:
    for number, email in enumerate([one, other, one, other]):
        # Each address belongs to one account at a time.
        api.sql("UPDATE users SET email = username")
        sign_up(api, number, email)

    assert due(api) == {"now": 3, "within a day": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [("a@example.com", "b@example.com"), ("a.b@example.com", "ab@example.com"), ("+a@example.com", "+b@example.com")],
)
def test_other_mailboxes_have_limits_of_their_own(api: ApiService, one: str, other: str) -> None:
    for number, email in enumerate([one, other] * 3):
        api.sql("UPDATE users SET email = username")
        sign_up(api, number, email)

    assert due(api) == {"now": 6}


@pytest.mark.parametrize(
    ("one", "other"), [("2001:db8::1", "2001:db8:0:ffff::2"), ("::ffff:203.0.113.9", "203.0.113.9"), ("x", "y")]
)
def test_addresses_of_one_network_are_one_client(api: ApiService, one: str, other: str) -> None:
    for number, client in enumerate([one, other] * 2):
        sign_up(api, number, f"victim+{number}@example.com", client)

    assert due(api) == {"now": 3, "within a day": 1}


def test_two_processes_never_send_more_than_allowed(database_url: str) -> None:
    start = threading.Barrier(8)
    with ExitStack() as stack:
        services = [stack.enter_context(api_service(database_url, trusted_proxies=1)) for _ in range(2)]

        def at_once(number: int) -> int:
            start.wait(timeout=10)
            status: int = sign_up(
                services[number % 2], number, f"victim+{number}@example.com", f"203.0.113.{number}"
            ).status_code
            return status

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(at_once, range(8)))
        assert answers == [201] * 8
        assert due(services[0]) == {"now": 5, "within a day": 3}


def test_of_one_address_one_mail_waits(api: ApiService) -> None:
    sign_up(api, 0, "victim@example.com")
    for _ in range(4):
        forget_the_minute(api)
        ask_again(api, "victim@example.com")

    assert due(api) == {"now": 3, "within a day": 1}
    assert reasons(api) == {f"discarded: {ONE_WAITS}": 1}
    [row] = api.sql("SELECT * FROM outbox_messages WHERE status = 'discarded'")
    [highest] = api.sql("SELECT max(id) AS id FROM outbox")
    assert (row["id"] > highest["id"], row["task"], row["payload"], row["attempt"], bool(row["uid"])) == (
        True,
        "task:send_verify_email",
        {"username": "user_0"},
        0,
        True,
    )


def test_a_refused_signup_counts_no_mail(api: ApiService) -> None:
    sign_up(api, 0, "victim@example.com")
    for _ in range(3):
        assert sign_up(api, 0, "victim+x@example.com", password="some other horse").status_code == 409  # noqa: S106

    sign_up(api, 1, "victim+1@example.com")

    assert due(api) == {"now": 2}
    assert len(api.sql("SELECT 1 FROM verification_mails")) == 2


def test_resends_without_an_account_count_no_mail(api: ApiService) -> None:
    for number in range(5):
        ask_again(api, f"victim+{number}@example.com")

    assert sign_up(api, 1, "victim@example.com").status_code == 201
    assert due(api) == {"now": 1}


def test_limits_that_are_off_hold_nothing_back(database_url: str) -> None:
    with api_service(database_url, trusted_proxies=1, mail_limits=NO_MAIL_LIMITS) as api:
        for number in range(6):
            sign_up(api, number, f"victim+{number}@example.com")

        assert due(api) == {"now": 6}


def test_no_address_and_no_network_is_kept(api: ApiService) -> None:
    sign_up(api, 0, "victim@example.com")

    [row] = api.sql("SELECT verification_mails::text AS text FROM verification_mails")
    assert [word for word in ("victim", STRANGER) if word in row["text"] or word.encode().hex() in row["text"]] == []


def test_a_signup_with_a_key_is_limited_too_and_its_repetition_counts_nothing(api: ApiService) -> None:
    for number in range(4):
        person = {**ALICE, "username": f"user_{number}", "email": f"victim+{number}@example.com"}
        headers = {"X-Forwarded-For": STRANGER, "Idempotency-Key": f'"{number}-8e03978e-40d5-43e8-bc93-6894a57f9324"'}
        for _ in range(2):
            assert api.client().post("/v1/users", json=person, headers=headers).status_code == 201

    assert due(api) == {"now": 3, "within a day": 1}


@pytest.mark.parametrize(
    ("limits", "emails", "expected"),
    [
        (MailLimits(domain_an_hour=2), ["a@x.example", "b@X.example", "c@x.example", "d@y.example"], [0, 0, 1, 0]),
        (MailLimits(total_an_hour=2), ["a@x.example", "b@y.example", "c@z.example", "d@z.example"], [0, 0, 1, 1]),
        (MailLimits(total_an_hour=1), ["a@x.example", "b@y.example", "c@z.example"], [0, 1, 2]),
        (
            MailLimits(domain_an_hour=1, total_an_hour=2),
            ["a@x.example", "b@x.example", "c@y.example", "d@y.example", "e@x.example"],
            [0, 1, 0, 1, 2],
        ),
    ],
    ids=["domain", "total", "several hours", "both"],
)
def test_what_an_hour_has_no_room_for_waits_for_the_next_one(
    database_url: str, limits: MailLimits, emails: list[str], expected: list[int]
) -> None:
    with api_service(database_url, mail_limits=limits) as api:
        for number, email in enumerate(emails):
            assert sign_up(api, number, email).status_code == 201
        rows = api.sql(
            "SELECT extract(epoch FROM date_trunc('hour', due_at) - date_trunc('hour', created_at))::int / 3600"
            " AS hour, due_at = date_trunc('hour', due_at) AS is_full FROM outbox ORDER BY id"
        )
        states = [row["state"] for row in api.sql("SELECT state FROM verification_mails ORDER BY message_id")]
        assert api.client().get("/readyz").status_code == 200

    assert [row["hour"] for row in rows] == expected
    assert [row["is_full"] for row in rows] == [hour > 0 for hour in expected]
    assert states == ["prompt" if hour == 0 else "waiting" for hour in expected]


def test_a_refused_signup_counts_in_no_hour(database_url: str) -> None:
    with api_service(database_url, mail_limits=MailLimits(total_an_hour=2)) as api:
        for email in ("a@x.example", "b@x.example", "c@x.example"):
            sign_up(api, 0, email, password=f"the horse of {email[0]}")

        assert api.sql("SELECT sum(mails) AS mails FROM mail_counts") == [{"mails": 1}]


def test_a_waiting_mail_that_was_given_up_makes_room_for_the_next_one(api: ApiService) -> None:
    for number in range(3):
        sign_up(api, number, f"victim+{number}@example.com")
    sign_up(api, 3, "victim@example.com")
    ask_again(api, "victim@example.com")
    discarded_while_one_waited = reasons(api)

    # An operator's discard does this, and so does a worker when the account has moved.
    api.sql("DELETE FROM outbox WHERE due_at > now()")
    forget_the_minute(api)
    ask_again(api, "victim@example.com")

    assert discarded_while_one_waited == {f"discarded: {ONE_WAITS}": 1}
    assert due(api) == {"now": 3, "within a day": 1}


def test_limits_hold_while_secret_keys_change(database_url: str) -> None:
    keys = [(KEY,), (OLD_KEY, KEY), (KEY, OLD_KEY), (OLD_KEY, KEY)]
    for number, secret_keys in enumerate(keys):
        with api_service(database_url, secret_keys=secret_keys) as api:
            sign_up(api, number, "victim@example.com")
            counts = due(api)

    assert counts == {"now": 3, "within a day": 1}
