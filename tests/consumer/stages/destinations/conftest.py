"""A world whose consumers know tasks of other destinations than the mail server, and what is logged in it."""

from collections.abc import Iterator

import pytest
import structlog

from embedded.mail.catcher import MailCatcher
from tests.consumer.stages.destinations.calls import Calls, calls_of
from tests.consumer.stages.processing.world import Logs


@pytest.fixture
def calls(database_url: str, mailbox: MailCatcher) -> Iterator[Calls]:
    with calls_of(database_url, mailbox.smtp_port) as opened:
        yield opened


@pytest.fixture
def logs() -> Iterator[Logs]:
    with structlog.testing.capture_logs() as captured:
        yield captured
