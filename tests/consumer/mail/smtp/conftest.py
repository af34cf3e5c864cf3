"""Mailers that are closed in the end."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from consumer.mail.client import Mailer
from embedded.programs.ports import LOOPBACK
from shared.settings.smtp_server import SmtpSecurity, SmtpServer
from tests.consumer.mail.smtp.sending import Open


@pytest.fixture(scope="module", autouse=True)
def no_socket_is_left_open() -> Iterator[None]:
    """A socket that is left to the garbage collector is a warning, and so an error, here at the latest."""
    yield
    gc.collect()


@pytest.fixture
def mailer() -> Iterator[Open]:
    """Make mailers, which are closed in the end."""
    opened: list[Mailer] = []

    def open_(
        port: int,
        *,
        host: str = LOOPBACK,
        security: SmtpSecurity = "smtp",
        login: tuple[str, str] | None = None,
        step_seconds: float = 5.0,
        helo_name: str | None = "example.org",
        **others: Any,
    ) -> Mailer:
        server = SmtpServer(security, host, port, *(login or ()))
        opened.append(
            Mailer(
                server,
                step_seconds=step_seconds,
                helo_name=helo_name,
                **others,
            )
        )
        return opened[-1]

    yield open_
    for each in opened:
        each.close()
