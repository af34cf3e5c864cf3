"""Redis: killed, wiped, started again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.errors import AlreadyRunningError, EmbeddedError, MissingBinaryError
from embedded.servers.redis import PROGRAM_VARIABLE, RedisServer, redis_binary
from tests.waiting import wait_until


def value(server: RedisServer) -> bytes | None:
    with server.client() as client:
        found = client.get("key")
        assert found is None or isinstance(found, bytes)
        return found


def write(server: RedisServer) -> None:
    with server.client() as client:
        client.set("key", "value")


def test_what_was_written_is_there_after_kill_and_restart(own_redis: RedisServer) -> None:
    url = own_redis.url
    write(own_redis)

    own_redis.kill()
    own_redis.start()
    own_redis.restart()

    assert own_redis.url == url
    assert value(own_redis) == b"value"


def test_a_server_that_others_killed_is_started_again(own_redis: RedisServer) -> None:
    write(own_redis)

    os.kill(own_redis.pid, 9)

    assert own_redis.wait(10) == -9

    own_redis.start()

    assert value(own_redis) == b"value"


def test_waiting_for_a_living_server_has_an_end(own_redis: RedisServer) -> None:
    with pytest.raises(TimeoutError):
        own_redis.wait(0.05)


def test_wiped_it_comes_back_empty(own_redis: RedisServer) -> None:
    write(own_redis)

    own_redis.stop()
    own_redis.wipe()
    own_redis.start()

    assert value(own_redis) is None


def test_a_running_server_is_not_wiped(own_redis: RedisServer) -> None:
    with pytest.raises(EmbeddedError):
        own_redis.wipe()


def test_it_comes_back_empty_unless_it_is_append_only(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, append_only=False)
    server.start()
    write(server)

    server.restart()

    assert value(server) is None

    server.kill()


def test_a_full_queue_refuses_instead_of_forgetting(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_settings_are_passed_on(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, settings={"maxmemory": "50mb"})
    server.start()
    with server.client() as client:
        found = client.config_get("maxmemory")
    server.kill()

    assert found == {"maxmemory": str(50 * 1024 * 1024)}


@pytest.fixture
def found_anew() -> Iterator[None]:
    """What a test finds as Redis' program is not remembered after it."""
    redis_binary.cache_clear()
    yield
    redis_binary.cache_clear()


def test_the_path_comes_after_the_wheel(
    found_anew: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_redis: RedisServer
) -> None:
    other = tmp_path / "redis-server"
    other.symlink_to(Path(f"/proc/{own_redis.pid}/exe").resolve())
    monkeypatch.setenv("PATH", str(tmp_path))

    assert redis_binary().parent != tmp_path

    monkeypatch.setenv(PROGRAM_VARIABLE, str(other))
    redis_binary.cache_clear()

    assert redis_binary() == other


def test_a_program_that_is_no_redis_is_refused(
    found_anew: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM_VARIABLE, str(tmp_path / "missing"))

    with pytest.raises(MissingBinaryError, match=r"missing is no redis-server of 6[.]2 or newer"):
        redis_binary()


def test_a_folder_in_use_is_left_alone(own_redis: RedisServer) -> None:
    with pytest.raises(AlreadyRunningError, match=str(own_redis.pid)):
        RedisServer(own_redis.folder, predecessor_seconds=0.2).start()

    with pytest.raises(AlreadyRunningError):
        own_redis.start()


def test_a_foreign_server_on_the_port_is_not_taken_for_it(own_redis: RedisServer, tmp_path: Path) -> None:
    late = RedisServer(tmp_path, port=own_redis.port)

    with pytest.raises(EmbeddedError):
        late.start()

    assert not late.running
    wait_until(lambda: value(own_redis) is None, 5, "an answer of the first server")
