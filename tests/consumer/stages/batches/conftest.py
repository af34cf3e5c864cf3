"""A desk, and the database that it works on."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from shared.database import connections
from shared.database.connections import connect
from tests.consumer.stages.batches.desk import Desk
from tests.rows import add_user


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    opened = Desk(database_url)
    yield opened
    opened.database.close()


@pytest.fixture
def connection(database_url: str) -> Iterator["Connection[Any]"]:
    with connect(database_url, "test") as opened:
        add_user(opened)
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    opening = connections.opening
    monkeypatch.setattr(connections, "opening", lambda connection, lock_seconds: opening(connection, lock_seconds / 10))
