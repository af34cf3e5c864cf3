"""The parameters of RQ_REDIS_URL that we take, held against redis-py."""

from typing import Final

import pytest
from environs import ValidationError
from redis import Redis

from shared.settings.redis_url import PARAMETERS, check_redis_parameters

PLACES: Final = {"redis": "redis://host/0", "rediss": "rediss://host/0", "unix": "unix:///run/redis.sock"}
VALUES: Final = ("1", "2", "771", "1.5", "true", "no", "required", "some text", "-1", "0", "nan", "inf", "")
EACH = [(scheme, name) for scheme, names in PARAMETERS.items() for name in names]


def is_taken_by_us(scheme: str, query: str) -> bool:
    try:
        check_redis_parameters(scheme, query)
    except ValidationError:
        return False
    return True


def connection_by_redis_py(scheme: str, query: str) -> object:
    """Build a connection, which opens nothing; raises where redis-py does not take the URL."""
    return Redis.from_url(f"{PLACES[scheme]}?{query}").connection_pool.make_connection()


@pytest.mark.parametrize(("scheme", "name"), EACH)
def test_what_is_taken_is_taken_by_redis_py_too(scheme: str, name: str) -> None:
    taken = [value for value in VALUES if is_taken_by_us(scheme, f"{name}={value}")]

    assert taken
    for value in taken:
        connection_by_redis_py(scheme, f"{name}={value}")


@pytest.mark.parametrize(
    ("scheme", "query"),
    [
        ("redis", "db=abc"),
        ("redis", "socket_timeout=soon"),
        ("redis", "nonsense=1"),
        ("redis", "ssl_ca_certs=/etc/ssl/ca.pem"),
        ("rediss", "ssl_cert_reqs=maybe"),
        ("unix", "socket_keepalive=yes"),
        ("unix", "db=1.5"),
    ],
)
def test_what_redis_py_does_not_take_is_refused(scheme: str, query: str) -> None:
    with pytest.raises(Exception, match=r"."):
        connection_by_redis_py(scheme, query)

    assert not is_taken_by_us(scheme, query)


@pytest.mark.parametrize("query", ["decode_responses=true", "encoding=latin-1", "protocol=4", "max_connections=0"])
def test_what_would_change_replies_or_stop_the_work_is_refused(query: str) -> None:
    assert not is_taken_by_us("redis", query)


def test_the_error_repeats_nothing_of_the_url() -> None:
    with pytest.raises(ValidationError) as caught:
        check_redis_parameters("redis", "hunter2=hunter2@host")

    assert "hunter2" not in str(caught.value)
