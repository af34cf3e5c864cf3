"""A resend and a correction over HTTP meet the relay that is deleting the account."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from outbox_relay.loop.maintenance import expiry_statements
from outbox_relay.loop.maintenance.expiry import AccountExpiry
from shared.database.connections import DbConnection, connect, transaction
from tests.programs.api_service import ALICE, ApiService, api_service

Request = tuple[str, dict[str, Any]]

RESEND: Request = ("/v1/verify_email/resend", {"email": ALICE["email"]})
REQUESTS: dict[str, tuple[Request, int]] = {
    "resend": (RESEND, 202),
    "resend-by-name": (("/v1/verify_email/resend", {"email": ALICE["email"], "username": "alice"}), 202),
    "correction": (("/v1/signup/email", {"email": "corrected@example.com"}), 401),
}
WITHOUT_DAYS = 0.0


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


@pytest.fixture
def relay(database_url: str) -> Iterator[DbConnection]:
    with connect(database_url, "a relay") as connection:
        yield connection


def sign_up_and_mail(api: ApiService) -> dict[str, str]:
    """Sign up, as if the mail had been sent and its link had ended, and return what shows the token."""
    token = api.sign_up().json["signup_token"]  # type: ignore[index] # a test's own request
    api.sql("DELETE FROM outbox")
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=REQUESTS)
def test_who_comes_while_the_account_is_deleted_waits_and_finds_none(
    api: ApiService, relay: DbConnection, request_: Request, status: int
) -> None:
    headers = sign_up_and_mail(api)
    address, body = request_
    with ThreadPoolExecutor(1) as pool:
        with transaction(relay):
            locked = expiry_statements.lock_accounts(relay, WITHOUT_DAYS, 10, expiry_statements.FIRST)
            answer = pool.submit(lambda: api.client().post(address, json=body, headers=headers))
            api.wait_for_a_lock()
            assert expiry_statements.delete_accounts(relay, WITHOUT_DAYS, locked.usernames, []) == 1
        assert answer.result().status_code == status

    assert (api.messages(), api.sql("SELECT FROM users")) == ([], [])
    assert api.sign_up(email="another@example.com").status_code == 201  # the name is free


@pytest.mark.parametrize("request_", [request for request, _ in REQUESTS.values()], ids=REQUESTS)
def test_who_comes_before_keeps_the_account(api: ApiService, relay: DbConnection, request_: Request) -> None:
    headers = sign_up_and_mail(api)
    address, body = request_

    assert api.client().post(address, json=body, headers=headers).status_code < 300

    assert AccountExpiry(WITHOUT_DAYS).step(relay).deleted == 0
    assert len(api.messages()) == 1
