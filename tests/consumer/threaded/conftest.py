"""Fixtures: a database, a Redis and a mail server for workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.mail.catcher import MailCatcher
from tests.consumer.threaded.service import Service, service_of
from tests.programs.preloading import Preloaded


@pytest.fixture
def service(
    database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> Iterator[Service]:
    with service_of(database_url, redis_url, mailbox, origin, tmp_path) as opened:
        yield opened
