"""`redis+sentinel://`: what it says, and what is wrong with one that is malformed."""

from typing import Any

import pytest
from redis.connection import SSLConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from redis_client.opening import open_redis
from redis_client.retrying import no_retry
from redis_client.sentinels import SENTINEL_SECONDS
from shared.errors import SettingsError
from shared.settings.relay import read_relay_settings
from shared.settings.sentinel_url import parse_sentinel_url

HOSTS = "redis+sentinel://one,two"


def test_the_whole_form() -> None:
    url = parse_sentinel_url(
        "rediss+sentinel://us%65r:p%40ss%2F@one:1,[::1]:2,[fe80::1]/my%2Fservice/3"
        "?sentinel_username=watch%26er&ssl_ca_certs=/ca.pem&sentinel_password=a+b%23c"
    )

    assert url.sentinels == (("one", 1), ("::1", 2), ("fe80::1", 26379))
    assert (url.service, url.sentinel_username, url.sentinel_password) == ("my/service", "watch&er", "a+b#c")
    assert url.master_url == "rediss://us%65r:p%40ss%2F@/3?ssl_ca_certs=/ca.pem"


def test_the_short_form() -> None:
    url = parse_sentinel_url("redis+sentinel://one/outbox")

    assert (url.sentinels, url.service, url.master_url) == ((("one", 26379),), "outbox", "redis:///0")
    assert (url.sentinel_username, url.sentinel_password) == (None, None)


def test_no_password_is_shown() -> None:
    url = parse_sentinel_url("redis+sentinel://user:first-secret@one/outbox?sentinel_password=second-secret")

    assert "secret" not in repr(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (HOSTS, "name of the service"),
        (f"{HOSTS}/", "name of the service"),
        (f"{HOSTS}//0", "name of the service"),
        (f"{HOSTS}/outbox/zero", "number of a database"),
        (f"{HOSTS}/outbox/0/1", "number of a database"),
        (f"{HOSTS}/outbox/²", "number of a database"),
        ("redis+sentinel:///outbox", "needs a host"),
        ("redis+sentinel://one,/outbox", "needs a host"),
        ("redis+sentinel://one:/outbox,two/outbox", "number of a database"),
        ("redis+sentinel://one:0/outbox", "1 to 65535"),
        ("redis+sentinel://one:65536/outbox", "1 to 65535"),
        ("redis+sentinel://one:port/outbox", "1 to 65535"),
        ("redis+sentinel://::1/outbox", "brackets"),
        ("redis+sentinel://[::1/outbox", "brackets"),
        ("redis+sentinel://[::1]1/outbox", "brackets"),
        ("redis+sentinel://user:sec#ret@one/outbox", "%23"),
        ("redis+sentinel://user:sec[ret@one/outbox", "percent-encoded"),
        (f"{HOSTS}/outbox?db=secret", "its parameter db"),
        (f"{HOSTS}/outbox?secret=1", "a parameter that is none of"),
        (f"{HOSTS}/outbox?sentinel_user=secret", "sentinel_username and sentinel_password"),
        (f"{HOSTS}/outbox?sentinel_username=secret", "needs sentinel_password"),
    ],
)
def test_a_malformed_one_stops_the_process_by_the_name_of_the_setting(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/outbox")
    monkeypatch.setenv("RQ_REDIS_URL", url)

    with pytest.raises(SettingsError) as stopped:
        read_relay_settings()

    [[problem]] = [stopped.value.problems["RQ_REDIS_URL"]]
    assert why in problem
    assert "secret" not in str(stopped.value)
    assert "ret@" not in str(stopped.value)


def test_the_settings_take_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/outbox")
    monkeypatch.setenv("RQ_REDIS_URL", f"{HOSTS}/outbox/2")

    assert read_relay_settings().redis_url == f"{HOSTS}/outbox/2"


def test_user_and_password_go_to_the_master_and_the_sentinels_have_their_own() -> None:
    client = open_redis(
        "redis+sentinel://user:p%40ss@one:1,two:2/outbox/3?sentinel_password=own&health_check_interval=5",
        socket_timeout=3.0,
    )

    pool: Any = client.connection_pool
    kwargs = pool.connection_kwargs
    assert (pool.service_name, pool.connection_class) == ("outbox", SentinelManagedConnection)
    assert [kwargs[name] for name in ("username", "password", "db", "socket_timeout")] == ["user", "p@ss", 3, 3.0]
    assert (kwargs["health_check_interval"], kwargs["retry"]) == (5, no_retry())
    of_sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"], each["password"]) for each in of_sentinels] == [
        ("one", 1, "own"),
        ("two", 2, "own"),
    ]
    assert {each["socket_timeout"] for each in of_sentinels} == {SENTINEL_SECONDS}
    assert {each["db"] for each in of_sentinels} == {0}


def test_tls_is_spoken_to_the_sentinels_too() -> None:
    client = open_redis("rediss+sentinel://one/outbox?ssl_ca_certs=/ca.pem")

    pool: Any = client.connection_pool
    assert (pool.connection_class, pool.connection_kwargs["ssl_ca_certs"]) == (SentinelManagedSSLConnection, "/ca.pem")
    [sentinel] = pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_class is SSLConnection
    assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == "/ca.pem"
