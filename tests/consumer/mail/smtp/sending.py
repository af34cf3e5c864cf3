"""What tests of sending share: a mail, a lease, and how long something may take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from consumer.mail.client import Envelope, Mailer
from consumer.model.lease import Lease
from consumer.model.outcomes import DestinationUnavailable, Failed
from embedded.programs.ports import LOOPBACK
from tests.servers.scripted_mail_server import PIPELINING

MAIL = Envelope("signup@example.org", "alice@example.com", b"Subject: Hi\r\n\r\nHello\r\n")
LOGIN = ("signup", 'pass word: "!"')
LONG = 60.0
QUICK = 0.3

Open = Callable[..., Mailer]

Answers = dict[str, str]

both_manners = pytest.mark.parametrize("manner", [{}, PIPELINING], ids=["one command at a time", "several at once"])
"""What a server offers makes no difference to what its answers mean."""


class OverAtTheDot(Lease):
    """What a process sees that stood still directly before the last dot."""

    def is_over(self) -> bool:
        return True


def lease(seconds: float = LONG) -> Lease:
    return Lease.start(seconds)


@contextmanager
def takes(at_least: float, at_most: float) -> Iterator[None]:
    started = monotonic()
    yield
    seconds = monotonic() - started

    assert at_least <= seconds <= at_most


def outage(reason: str, port: int, cause: str, **known: bool) -> DestinationUnavailable:
    """Return the outage whose reason names the server and the cause."""
    return DestinationUnavailable(f"{reason}: {LOOPBACK}:{port}: {cause}", **known)


def unanswered(port: int, cause: str) -> Failed:
    reason = f"no answer after the mail was sent: {LOOPBACK}:{port}: {cause}"
    return Failed(reason, maybe_accepted=True, is_unanswered=True)
