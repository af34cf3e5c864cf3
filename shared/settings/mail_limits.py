"""The settings of how many verification mails a mailbox, a domain and the whole service may get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from environs import Env, ValidationError

from shared.settings.parsing import read_parsed

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
"""The variable of each limit, and its default, in the order of the fields of MailLimits."""


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
    days: float = field(default=7.0, kw_only=True)


def read_mail_limits(env: Env) -> MailLimits:
    """Read each limit's variable; `env` collects problems. The caller sets `days`."""
    return MailLimits(*(read_parsed(env, name, _parser(name), text) for name, text in DEFAULTS.items()))


def _parser(name: str) -> Callable[[str], int | None]:
    largest = _LARGEST_OF_MAILBOX if name.startswith("MAILBOX_") else _LARGEST

    def parse(text: str) -> int | None:
        if text == OFF:
            return None
        if text.isascii() and text.isdecimal() and 1 <= int(text) <= largest:
            return int(text)
        why = "would let no mail out" if text and not text.strip("0") else "is no number of mails"
        raise ValidationError(f"{why}: write a whole number from 1 to {largest}, or '{OFF}' for no limit.")

    return parse
