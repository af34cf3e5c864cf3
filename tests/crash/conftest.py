"""The servers for scenes of crashes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.databases import Databases
from embedded.redis import RedisServer
from tests.crash.scene import Stage, opened_stage


@pytest.fixture(scope="session")
def stage(
    postgres: Databases, database_template: str, redis_server: RedisServer, server_folder: Path
) -> Iterator[Stage]:
    """The session's servers; of a given Redis nobody knows which of its databases may be emptied."""
    folder = server_folder / "crash"
    folder.mkdir()
    with opened_stage(postgres, database_template, redis_server, folder) as stage:
        yield stage
