"""A second session, which waits for a lock for 100 ms at most."""

from collections.abc import Iterator

import pytest

from shared.database.connections import connect
from tests.outbox_relay.loop.expiry.accounts import Connection


@pytest.fixture
def others(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "others") as connection:
        connection.execute("SET lock_timeout = '100 ms'")
        yield connection
