"""Open a client for RQ_REDIS_URL: for a server, or for the master that sentinels name."""

from typing import Any, TypeVar

from redis import Redis
from redis.connection import SSLConnection, parse_url

from redis_client.retrying import no_retry
from redis_client.sentinels import MasterPool, Sentinels
from shared.settings.sentinel_url import is_sentinel_url, parse_sentinel_url

Client = TypeVar("Client", bound=Redis)


def open_redis(redis_url: str, **options: Any) -> Redis:  # noqa: ANN401 - redis-py's
    """Return a client that repeats no command, for the server or the master that the URL names; nothing is sent yet.

    Args:
        redis_url: as RQ_REDIS_URL has it.
        options: redis-py's, such as socket_timeout. Parameters of the URL override them.

    Raises:
        ValueError: the URL is malformed.

    """
    if is_sentinel_url(redis_url):
        return open_master(redis_url, Redis, **options)
    return Redis.from_url(redis_url, retry=no_retry(), **options)


def open_master(redis_url: str, client_class: type[Client], **options: Any) -> Client:  # noqa: ANN401 - redis-py's
    """Return a client of that class for a URL that names sentinels; nothing is sent yet."""
    address = parse_sentinel_url(redis_url)
    master = {"retry": no_retry(), **options, **parse_url(address.master_url)}  # type: ignore[no-untyped-call]
    of_sentinels = {name: value for name, value in master.items() if name.startswith("ssl_")}
    if master.pop("connection_class", None) is SSLConnection:
        of_sentinels["ssl"] = master["ssl"] = True
    sentinels = Sentinels(
        address.sentinels, username=address.sentinel_username, password=address.sentinel_password, **of_sentinels
    )
    client: Client = sentinels.master_for(  # type: ignore[no-untyped-call]
        address.service, redis_class=client_class, connection_pool_class=MasterPool, **master
    )
    return client
