"""Steps of the tests of accounts: requests with a signup token, requested mails, and mails that wait for a limit."""

from typing import Any

from werkzeug.test import TestResponse

from api.accounts.mail_limits.limiter import MailLimiter
from shared.settings.mail_limits import MailLimits
from tests.programs.api_service import ALICE, KEY, ApiService

SIGNUP = "/v1/signup"
RESEND = "/v1/verify_email/resend"
RIGHT = "alice@example.org"
MALLORY = {**ALICE, "username": "mallory", "password": "what mallory chose"}


def bearer(signup: TestResponse) -> dict[str, str]:
    return {"Authorization": f"Bearer {signup.get_json()['signup_token']}"}


def correct(api: ApiService, headers: dict[str, str], email: str = RIGHT) -> TestResponse:
    return api.client().post(f"{SIGNUP}/email", json={"email": email}, headers=headers)


def state(api: ApiService, headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = api.client().get(SIGNUP, headers=headers).get_json()
    return found


def mailed(api: ApiService) -> list[str]:
    """Return the usernames of the requested mails, in order."""
    return [name for task, name in api.messages() if task == "task:send_verify_email"]


def let_claim(api: ApiService) -> None:
    """Act as if a worker had claimed and released each message: no later request becomes part of it."""
    api.sql("UPDATE outbox SET claimed_at = now()")


def welcomes(api: ApiService) -> list[str]:
    """Return the usernames of the requested welcome mails, in order."""
    return [name for task, name in api.messages() if task == "task:send_welcome_email"]


def let_mails_wait(api: ApiService, email: str) -> None:
    """Use up the mailbox's limits with five mails of this hour: the next one waits."""
    api.sql(
        "INSERT INTO verification_mails (message_id, mailbox_hmac, address_hmac, state, due_at)"
        " SELECT -n, %(of_mailboxes)s[1], %(of_addresses)s[1], 'prompt', now() FROM generate_series(1, 5) AS n",
        MailLimiter(MailLimits(), (KEY,)).address_values(email),
    )
