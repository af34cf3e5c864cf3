"""Servers serve the user who started them: any local user can reach a port of 127.0.0.1."""

import secrets
from pathlib import Path

import psycopg

from embedded.programs.ports import LOOPBACK
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from tests.embedded.strangers import refuses_commands, refuses_programs, strangers_find
from tests.programs.preloading import Preloaded


def test_postgresql_runs_nothing_for_strangers(own_postgres: PostgresServer) -> None:
    assert refuses_programs(own_postgres.url())
    assert refuses_programs(f"postgresql://postgres@{LOOPBACK}:{own_postgres.port}/postgres")


def test_strangers_do_not_find_postgresql_s_password(own_postgres: PostgresServer) -> None:
    assert len(own_postgres.password) >= 32
    assert not strangers_find(own_postgres.password, own_postgres.folder)
    assert own_postgres.password_file.stat().st_mode & 0o777 == 0o600


def test_a_cluster_without_a_password_gets_one_and_keeps_its_data(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url("outbox"), autocommit=True) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS note")
        # As an earlier version left it: its pg_hba.conf says `trust`, the superuser has no password.
        connection.execute("ALTER ROLE postgres PASSWORD NULL")
        # Nor must it wait for a standby that is not there.
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    own_postgres.stop()
    own_postgres.password_file.unlink()

    own_postgres.start()

    assert refuses_programs(f"postgresql://postgres@{LOOPBACK}:{own_postgres.port}/outbox")
    with psycopg.connect(own_postgres.url("outbox")) as connection:
        assert connection.execute("SELECT note FROM notes").fetchall() == [("kept",)]


def test_redis_does_nothing_for_strangers(own_redis: RedisServer) -> None:
    assert refuses_commands(own_redis.port)


def test_strangers_do_not_find_redis_password(own_redis: RedisServer) -> None:
    assert len(own_redis.password) >= 32
    assert not strangers_find(own_redis.password, own_redis.folder)
    assert own_redis.password_file.stat().st_mode & 0o777 == 0o600


def test_strangers_cannot_read_what_redis_writes_into_its_folder(own_redis: RedisServer) -> None:
    # CONFIG REWRITE, which sentinels call for, writes the password into a file with the rights of the umask.
    assert own_redis.folder.stat().st_mode & 0o777 == 0o700


def test_a_redis_without_a_password_gets_one_and_keeps_its_data(own_redis: RedisServer) -> None:
    key = secrets.token_hex(4)
    with own_redis.client() as client:
        client.set(key, "kept")
        client.config_set("requirepass", "")
    own_redis.stop()
    for name in ("password", "redis.conf"):
        (own_redis.folder / name).unlink()
    again = RedisServer(own_redis.folder)

    again.start()

    try:
        assert refuses_commands(again.port)
        with again.client() as client:
            assert client.get(key) == b"kept"
    finally:
        again.stop()


def test_strangers_cannot_have_programs_forked(origin: Preloaded) -> None:
    assert origin.address.stat().st_mode & 0o777 == 0o600


def test_each_run_of_redis_has_a_password_of_its_own(tmp_path: Path) -> None:
    assert RedisServer(tmp_path).password != RedisServer(tmp_path).password
