"""The settings of how many verification mails a mailbox, a domain and the whole service may get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from environs import Env, ValidationError

OFF: Final = "off"
_LARGEST: Final = 1_000_000
_LARGEST_OF_MAILBOX: Final = 1000

DEFAULTS: Final[Mapping[str, str]] = {
    "MAILBOX_MAILS_PER_HOUR": "5",
    "MAILBOX_MAILS": "10",
    "MAILBOX_MAILS_PER_HOUR_OF_CLIENT": "3",
    "MAILBOX_MAILS_OF_CLIENT": "5",
    "DOMAIN_MAILS_PER_HOUR": OFF,
    "TOTAL_MAILS_PER_HOUR": OFF,
}
"""The variable of each limit, and its default."""


@dataclass(frozen=True, slots=True)
class MailLimits:
    """How many verification mails may be due in a period; None for no limit.

    Attributes:
        mailbox_an_hour, mailbox: of one mailbox, in any hour and in any `days`.
        client_an_hour, client: of those, how many one client network may request.
        domain_an_hour, total_an_hour: of one recipient domain and of all, in an hour of the clock.
        days: UNVERIFIED_DAYS, at least one day.

    """

    mailbox_an_hour: int | None = 5
    mailbox: int | None = 10
    client_an_hour: int | None = 3
    client: int | None = 5
    domain_an_hour: int | None = None
    total_an_hour: int | None = None
    days: float = 7.0


def read_texts(env: Env) -> list[str]:
    """Read each limit's variable; `env` collects errors."""
    return [env.str(name, text, validate=_checks(name)) for name, text in DEFAULTS.items()]


def parse_texts(texts: list[str], unverified_days: float) -> MailLimits:
    """Parse the variables, once all of them are known to be valid."""
    mailbox_an_hour, mailbox, client_an_hour, client, domain_an_hour, total_an_hour = (
        None if text == OFF else int(text) for text in texts
    )
    return MailLimits(
        mailbox_an_hour=mailbox_an_hour,
        mailbox=mailbox,
        client_an_hour=client_an_hour,
        client=client,
        domain_an_hour=domain_an_hour,
        total_an_hour=total_an_hour,
        days=max(1.0, unverified_days),
    )


def _checks(name: str) -> Callable[[str], None]:
    largest = _LARGEST_OF_MAILBOX if name.startswith("MAILBOX_") else _LARGEST

    def check(text: str) -> None:
        if text == OFF or (text.isascii() and text.isdecimal() and 1 <= int(text) <= largest):
            return
        why = "would let no mail out" if text and not text.strip("0") else "is no number of mails"
        raise ValidationError(f"{why}: write a whole number from 1 to {largest}, or '{OFF}' for no limit.")

    return check
