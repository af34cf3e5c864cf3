"""Measure whether the time of "send it again" reveals who has an account, with addresses of every kind in turn."""

import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
import structlog
from flask.testing import FlaskClient

from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.signup_tokens.signing import sign_token
from shared.settings.mail_limits import MailLimits
from tests.programs.api_service import KEY, api_service

KINDS = (
    "nobody",
    "unverified",
    "verified",
    "several accounts",
    "by username",
    "by token",
    "over a limit",
    "asked just now",
)
_MOST_BETWEEN_MEDIANS_SECONDS = 0.002
_ADD = """
    INSERT INTO users (username, email, full_name, hashed_password, is_email_verified)
    VALUES (%s, %s, 'A', '!', %s) RETURNING created_at
"""


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds of each answer, by the kind of address."""

    seconds: Mapping[str, list[float]]

    def holds(self) -> bool:
        """Return whether no kind of address differs from another by its median."""
        medians = [statistics.median(each) for each in self.seconds.values()]
        return max(medians) - min(medians) <= _MOST_BETWEEN_MEDIANS_SECONDS

    def __str__(self) -> str:
        def milliseconds(each: list[float]) -> str:
            return f"{statistics.median(each) * 1000:.2f} and {statistics.quantiles(each, n=10)[-1] * 1000:.2f}"

        return "p50 and p90 in ms: " + ", ".join(f"{kind} {milliseconds(each)}" for kind, each in self.seconds.items())


def measure(database_url: str, samples: int) -> Times:
    """Ask so often for each kind, in an order of chance."""
    turns = [(kind, number) for kind in KINDS for number in range(samples)]
    random.Random(17).shuffle(turns)  # noqa: S311 - no secret
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with (
        structlog.testing.capture_logs(),
        api_service(database_url) as api,
        psycopg.connect(database_url, autocommit=True) as connection,
        api.client() as client,
    ):
        _ask(client, "warm-up@example.com", {}, {})
        for kind, number in turns:
            seconds[kind].append(_sample(client, connection, kind, f"{kind.replace(' ', '_')}_{number}"))
    return Times(seconds)


def _sample(client: FlaskClient, connection: psycopg.Connection[tuple[object, ...]], kind: str, name: str) -> float:
    email = f"{name}@example.com"
    headers: dict[str, str] = {}
    more: dict[str, str] = {}
    created_at: object = None
    if kind != "nobody":
        row = connection.execute(_ADD, [name, email, kind == "verified"]).fetchone()
        created_at = row and row[0]
    if kind in {"several accounts", "by username", "by token"}:
        connection.execute(_ADD, [f"{name}_other", email, False])
    if kind == "by username":
        more = {"username": name}
    if kind == "by token":
        headers = {"Authorization": f"Bearer {sign_token([KEY], name, created_at)}"}  # type: ignore[arg-type] # a time
    if kind == "over a limit":
        # As if five mails had gone to the mailbox in this hour.
        of = MailLimiter(MailLimits(), (KEY,)).address_values(email)
        connection.execute(
            "INSERT INTO verification_mails (message_id, mailbox_hmac, address_hmac, state, due_at)"
            " SELECT -nextval('outbox_id_seq'), %(of_mailboxes)s[1], %(of_addresses)s[1], 'prompt', now()"
            " FROM generate_series(1, 5)",
            of,
        )
    if kind == "asked just now":
        _ask(client, email, {}, {})
    # What came just before is the same for all: a program that was awake answers faster than one that slept.
    connection.execute("SELECT count(*) FROM users WHERE username = 'warm-up'")
    return _ask(client, email, headers, more)


def _ask(client: FlaskClient, email: str, headers: dict[str, str], more: dict[str, str]) -> float:
    begin = time.perf_counter()
    response = client.post("/v1/verify_email/resend", json={"email": email, **more}, headers=headers)
    taken = time.perf_counter() - begin
    assert response.status_code == 202
    return taken
