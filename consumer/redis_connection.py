"""The Redis clients of a worker, and SentinelRedis, the class for RQ_CONNECTION_CLASS.

RQ's commands, `rq worker` and `rq info` among them, pass RQ_REDIS_URL to that class.
"""

from collections.abc import Mapping
from typing import Any, Self, cast

import click
from redis import ConnectionPool, Redis
from redis.sentinel import SentinelConnectionPool
from rq.cli.helpers import CliConfig
from rq.connections import parse_connection
from rq.defaults import DEFAULT_CONNECTION_CLASS

from redis_client.opening import open_master
from redis_client.retrying import no_retry
from redis_client.sentinels import MasterPool, Sentinels
from shared.errors import SettingsError
from shared.settings.sentinel_url import CONNECTION_CLASS, is_sentinel_url


class SentinelRedis(Redis):
    """A redis-py client that also accepts `redis+sentinel://` URLs. It then uses the current master."""

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Self:  # noqa: ANN401 - redis-py's signature
        """Return a client for the URL. Nothing is sent yet.

        Raises:
            ClickException: the URL names sentinels and is malformed. The text says what is wrong, without a value.

        """
        if not is_sentinel_url(url):
            return cast("Self", super().from_url(url, **kwargs))
        try:
            return open_master(url, cls, **kwargs)
        except ValueError as exc:
            raise click.ClickException(f"RQ_REDIS_URL is not a usable URL: {exc}.") from None


def check_connection_class(params: Mapping[str, Any]) -> None:
    """Raise SettingsError if the URL names sentinels and RQ would use its default class, which cannot read it."""
    url = params.get("url")
    if url and is_sentinel_url(url) and params.get("connection_class") == DEFAULT_CONNECTION_CLASS:
        raise SettingsError(
            {"RQ_CONNECTION_CLASS": [f"has to be {CONNECTION_CLASS} where RQ_REDIS_URL names sentinels."]}
        )


def open_as_rq_does(params: Mapping[str, Any]) -> Redis:
    """Return a client like the one that RQ's command line creates from its options. Nothing is sent yet.

    Args:
        params: the options of `rq worker`, by name. They may name a settings module instead of a URL.

    Raises:
        SettingsError: RQ cannot create a client.

    """
    check_connection_class(params)
    try:
        client: Redis = CliConfig(
            url=params.get("url"),
            config=params.get("config"),
            connection_class=params.get("connection_class", DEFAULT_CONNECTION_CLASS),
        ).connection
    except ValueError:  # its text may contain a part of the URL
        raise SettingsError({"RQ_REDIS_URL": ["is not a URL that redis-py understands."]}) from None
    return client


def same_redis(client: Redis, seconds: float, connect_seconds: float) -> Redis:
    """Return a client of the same server or sentinels, with these timeouts, that never retries a command."""
    client_class, connection_class, options = parse_connection(client)
    options.update(socket_timeout=seconds, socket_connect_timeout=connect_seconds, retry=no_retry())
    pool: Any = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        return client_class.from_pool(ConnectionPool(connection_class=connection_class, **options))
    del options["connection_pool"]
    given = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    sentinels = Sentinels([(each["host"], each["port"]) for each in given], **pool.sentinel_manager.sentinel_kwargs)
    return client_class.from_pool(
        MasterPool(  # type: ignore[no-untyped-call]
            pool.service_name, sentinels, connection_class=connection_class, **options
        )
    )
