"""The servers for scenes of crashes."""

import os
from pathlib import Path

import pytest

from embedded.databases import Databases
from embedded.redis import RedisServer
from tests.crash.scene import Stage


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, postgres: Databases, database_template: str, server_folder: Path) -> Stage:
    """The session's servers. Scenes keep to a database and a key prefix of their own."""
    folder = server_folder / "crash"
    folder.mkdir()
    redis_url = os.environ.get("TEST_REDIS_URL")
    if redis_url is None:
        server: RedisServer = request.getfixturevalue("redis_server")
        redis_url = server.url
    return Stage(postgres, database_template, redis_url, os.environ.get("RQ_KEY_PREFIX", "rq"), folder)
