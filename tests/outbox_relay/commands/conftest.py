from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from shared.database.connections import connect


@pytest.fixture
def connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to the database that the commands find in their environment."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    with connect(database_url, "test") as open_connection:
        yield open_connection
