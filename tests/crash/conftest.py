"""Fixtures of the crash tests: their servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.servers.databases import Databases
from embedded.servers.redis import RedisServer
from tests.crash.scene import Stage, stage_of
from tests.programs.preloading import Preloaded


@pytest.fixture(scope="session")
def stage(
    postgres: Databases, database_template: str, redis_server: RedisServer, origin: Preloaded, server_folder: Path
) -> Iterator[Stage]:
    """The session's own servers: in a Redis of TEST_REDIS_URL, other databases may not be emptied."""
    folder = server_folder / "crash"
    folder.mkdir()
    stage = stage_of(postgres, database_template, redis_server, origin, folder)
    yield stage
    for database in stage.idle_databases:
        database.drop()
