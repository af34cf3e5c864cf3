import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.accounts.steps import let_claim
from tests.programs.api_service import NO_MAIL_LIMITS, ApiService, api_service, limited_api

PATH = "/v1/verify_email/resend"
VERIFY = "task:send_verify_email"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    """The API with Alice signed up, whose first mail was claimed, and without limits of a mailbox."""
    with api_service(database_url, signup_mail_delay_seconds=60.0, mail_limits=NO_MAIL_LIMITS) as service:
        service.sign_up()
        let_claim(service)
        yield service


@pytest.mark.parametrize("email", ["alice@example.com", "ALICE@Example.Com"])
def test_unverified_account_gets_another_message_that_is_due(api: ApiService, email: str) -> None:
    response = api.client().post(PATH, json={"email": email})

    assert response.status_code == 202
    assert api.messages() == [(VERIFY, "alice"), (VERIFY, "alice")]
    assert api.sql("SELECT queue, due_at <= now() AS is_due FROM outbox ORDER BY id DESC LIMIT 1") == [
        {"queue": "critical", "is_due": True}
    ]


def test_verified_account_gets_none(api: ApiService) -> None:
    api.sql("UPDATE users SET is_email_verified = true")

    response = api.client().post(PATH, json={"email": "alice@example.com"})

    assert response.status_code == 202
    assert api.messages() == [(VERIFY, "alice")]


def test_answer_does_not_show_who_has_an_account(api: ApiService) -> None:
    api.sign_up(username="bob", email="bob@example.com")
    api.sql("UPDATE users SET is_email_verified = true WHERE username = 'bob'")

    answers = [
        api.client().post(PATH, json={"email": email}, headers={"X-Request-ID": "the-same"})
        for email in ("alice@example.com", "bob@example.com", "nobody@example.com")
    ]

    assert len({(answer.status, answer.data, str(answer.headers)) for answer in answers}) == 1


@pytest.mark.parametrize("body", [{}, {"email": None}, {"email": 1}, {"email": "a@@b"}, {"email": "a@b.test", "x": 1}])
def test_what_is_no_address_is_refused(api: ApiService, body: dict[str, object]) -> None:
    response = api.client().post(PATH, json=body)

    assert (response.status_code, response.mimetype) == (422, "application/problem+json")


def ask(api: ApiService, email: str = "alice@example.com") -> int:
    return api.client().post(PATH, json={"email": email}).status_code


def age(api: ApiService, by: str) -> None:
    """Let time pass for the counted mails, and let a worker claim them."""
    let_claim(api)
    api.sql(
        "UPDATE resends SET asked_at = asked_at - %(by)s::interval,"
        " mailed_at = ARRAY(SELECT mail - %(by)s::interval FROM unnest(mailed_at) AS mail)",
        {"by": by},
    )


def mails(api: ApiService) -> int:
    """Return the number of requested mails, without the signup's own."""
    return api.messages().count((VERIFY, "alice")) - 1


def test_address_is_mailed_once_a_minute_and_the_answer_stays_the_same(api: ApiService) -> None:
    answers = [ask(api, email) for email in ("alice@example.com", "alice@example.com", "ALICE@example.com")]
    within_the_minute = mails(api)
    age(api, "61 seconds")
    ask(api)

    assert answers == [202, 202, 202]
    assert (within_the_minute, mails(api)) == (1, 2)


def test_address_is_mailed_five_times_in_any_day(api: ApiService) -> None:
    counts = []
    for _ in range(7):
        ask(api)
        counts.append(mails(api))
        age(api, "4 hours")

    # The sixth comes 20 hours after the first, the seventh a day after it.
    assert counts == [1, 2, 3, 4, 5, 5, 6]


def test_asking_in_vain_does_not_lengthen_the_pause(api: ApiService) -> None:
    ask(api)
    age(api, "40 seconds")
    ask(api)
    age(api, "21 seconds")
    ask(api)

    assert mails(api) == 2


def test_asking_at_the_same_moment_mails_once(api: ApiService) -> None:
    start = threading.Barrier(4)

    def at_once(_number: int) -> int:
        start.wait(timeout=10)
        return ask(api)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(at_once, range(4)))

    assert answers == [202] * 4
    assert mails(api) == 1


def test_addresses_of_others_have_limits_of_their_own(api: ApiService) -> None:
    api.sign_up(username="bob", email="bob@example.com")
    ask(api, "bob@example.com")
    ask(api)

    assert mails(api) == 1


def test_no_address_is_kept(api: ApiService) -> None:
    ask(api, "nobody@example.com")

    [row] = api.sql("SELECT resends::text AS text FROM resends")
    assert "nobody" not in row["text"]
    assert b"nobody".hex() not in row["text"]


def test_rows_older_than_a_day_are_deleted(api: ApiService) -> None:
    ask(api, "nobody@example.com")
    ask(api, "somebody@example.com")
    age(api, "24 hours 1 second")

    ask(api)

    assert len(api.sql("SELECT 1 FROM resends")) == 1


def test_a_mail_is_not_made_when_the_answer_is_an_error(api: ApiService) -> None:
    with limited_api(api) as (limited, role):
        limited.sign_up()
        api.sql(f"REVOKE DELETE ON resends FROM {role}")
        answer = limited.client().post("/v1/verify_email/resend", json={"email": "alice@example.com"})

        assert (answer.status_code, len(api.messages())) == (503, 1)


def test_answer_takes_the_same_time_for_every_address(api: ApiService) -> None:
    api.sql("UPDATE users SET is_email_verified = true WHERE username = 'alice'")
    for number in range(15):
        api.sign_up(username=f"user{number}", email=f"user{number}@example.com")

    def seconds(email: str) -> float:
        begin = time.perf_counter()
        assert ask(api, email) == 202
        return time.perf_counter() - begin

    ask(api, "warm-up@example.com")
    known, unknown = [], []
    for number in range(15):
        known.append(seconds(f"user{number}@example.com"))
        unknown.append(seconds(f"nobody{number}@example.com"))

    assert min(known + unknown) >= 0.1
    assert abs(statistics.median(known) - statistics.median(unknown)) < 0.02
