from collections.abc import Iterator

import pytest

from tests.api_service import ApiService, api_service

PATH = "/v1/verify_email/resend"
VERIFY = "task:send_verify_email"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    """The API with Alice signed up."""
    with api_service(database_url, signup_mail_delay_seconds=60.0) as service:
        service.sign_up()
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


def test_answer_is_the_same_whoever_has_an_account(api: ApiService) -> None:
    api.sign_up(username="bob", email="bob@example.com")
    api.sql("UPDATE users SET is_email_verified = true WHERE username = 'bob'")

    answers = [
        api.client().post(PATH, json={"email": email}, headers={"X-Request-ID": "the-same"})
        for email in ("alice@example.com", "bob@example.com", "nobody@example.com")
    ]

    assert len({(answer.status, answer.data, str(answer.headers)) for answer in answers}) == 1


@pytest.mark.parametrize("body", [{}, {"email": None}, {"email": 1}, {"email": "a@@b"}, {"email": "a@b.test", "x": 1}])
def test_what_is_no_address_is_told_so(api: ApiService, body: dict[str, object]) -> None:
    response = api.client().post(PATH, json=body)

    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
