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
    """The session's servers; which databases of a given Redis may be emptied is not known."""
    folder = server_folder / "crash"
    folder.mkdir()
    stage = stage_of(postgres, database_template, redis_server, origin, folder)
    yield stage
    for database in stage.idle_databases:
        database.drop()
