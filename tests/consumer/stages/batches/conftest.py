"""Fixtures: the steps of a consumer and the database that they work on."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from consumer.stages.database import Database
from shared.database.connections import connect
from tests.consumer.stages.batches.steps import QuickDatabase, Steps
from tests.rows import add_user


@pytest.fixture
def steps(database_url: str) -> Iterator[Steps]:
    opened = Steps(Database(database_url), database_url)
    yield opened
    opened.database.close()


@pytest.fixture
def connection(database_url: str) -> Iterator["Connection[Any]"]:
    with connect(database_url, "test") as opened:
        add_user(opened)
        yield opened


@pytest.fixture
def quick_steps(database_url: str) -> Iterator[Steps]:
    """Return steps that wait a tenth of the usual time for a lock."""
    opened = Steps(QuickDatabase(database_url), database_url)
    yield opened
    opened.database.close()
