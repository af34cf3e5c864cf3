"""What tests of relay and consumer share."""

from collections.abc import Iterator

import pytest

from shared.database import DbConnection, connect, keep_plans


@pytest.fixture
def connection(database_url: str) -> Iterator[DbConnection]:
    """A connection like those of relay and consumer."""
    with connect(database_url, "test") as open_connection:
        keep_plans(open_connection)
        yield open_connection
