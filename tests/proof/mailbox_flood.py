"""A hundred signups and forty resends for one mailbox: how many mails it gets, and when its owner gets one."""

from dataclasses import dataclass

import structlog
from flask.testing import FlaskClient

from tests.programs.api_service import ALICE, ApiService, api_service

SIGNUPS, RESENDS = 100, 40
OWNER = "2001:db8:ffff::1"


@dataclass(frozen=True, slots=True)
class Flood:
    """The mails of the mailbox by when they are due.

    Attributes:
        clients: how many clients asked.
        in_hour, in_day, in_all: mails that are due within an hour, a day, and at all.
        owner_waits_hours: how long the owner's mail waits, who signs up after all that with the address without a tag.

    """

    clients: int
    in_hour: int
    in_day: int
    in_all: int
    owner_waits_hours: float

    def holds(self) -> bool:
        """Return whether the mailbox got no more than its limits allow, and its owner gets a mail."""
        hour, day = (3, 6) if self.clients == 1 else (5, 11)
        return self.in_hour <= hour and self.in_day <= day and self.in_all <= 10 + 8 and self.owner_waits_hours <= 49


def measure(database_url: str, clients: int) -> Flood:
    """Ask as so many clients in turn, as fast as the API answers."""
    with structlog.testing.capture_logs(), api_service(database_url, trusted_proxies=1) as api, api.client() as client:
        for number in range(SIGNUPS):
            _sign_up(client, f"attacker_{number}", f"victim+{number}@example.com", _address(number % clients))
        for number in range(RESENDS):
            body = {"email": f"victim+{number}@example.com"}
            headers = {"X-Forwarded-For": _address(number % clients)}
            answer = client.post("/v1/verify_email/resend", json=body, headers=headers)
            assert answer.status_code == 202
        in_hour, in_day, in_all = (_due(api, within) for within in ("59 minutes", "1 day", "1 year"))
        _sign_up(client, "owner", "victim@example.com", OWNER)
        [owner] = api.sql(
            "SELECT extract(epoch FROM due_at - created_at)::float8 / 3600 AS hours FROM outbox"
            " WHERE payload ->> 'username' = 'owner'"
        )
        return Flood(clients, in_hour, in_day, in_all, round(owner["hours"], 1))


def _address(number: int) -> str:
    return f"203.0.113.{number}"


def _sign_up(client: FlaskClient, username: str, email: str, address: str) -> None:
    person = {**ALICE, "username": username, "email": email}
    answer = client.post("/v1/users", json=person, headers={"X-Forwarded-For": address})
    assert answer.status_code == 201, answer.text


def _due(api: ApiService, within: str) -> int:
    statement = "SELECT count(*) AS mails FROM outbox WHERE due_at <= now() + %(within)s::interval"
    [row] = api.sql(statement, {"within": within})
    return int(row["mails"])
