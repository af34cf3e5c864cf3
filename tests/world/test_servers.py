"""The servers are those that `make world` is about."""

import psutil
import psycopg
import pytest
from redis import Redis

from tests.world import packages


def test_postgresql_is_debians_with_jit_and_settings_of_somebody_else(
    database_url: str, pytestconfig: pytest.Config
) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('jit'), pg_jit_available(),"
            " current_schemas(false)"
        ).fetchone()

    assert row is not None
    assert "Debian" in row[0]
    assert row[1:] == ("on", True, [pytestconfig.getoption("--postgres-schema")])


def test_redis_is_debians(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        info = client.info("server")

    assert info["executable"] == str(packages.REDIS.resolve().with_name("redis-server"))


def test_nothing_was_started_by_installing_the_packages() -> None:
    listening = {
        connection.laddr.port for connection in psutil.net_connections("tcp") if connection.status == psutil.CONN_LISTEN
    }

    assert listening & {25, 5432, 6379} == set()
