"""The address of a client's Redis for error texts: RQ's command line may name another one than RQ_REDIS_URL."""

from typing import Any
from urllib.parse import quote

from redis import Redis
from redis.sentinel import SentinelConnectionPool

from shared.outage_causes import redis_cause


def client_cause(error: BaseException, client: Redis) -> str:
    """Return where the client's Redis is and why it cannot be used, without a secret."""
    return redis_cause(error, _address_of(client))


def _address_of(client: Redis) -> str:
    """Return an address without a login: of one server, or of the sentinels that name it."""
    pool: Any = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        sentinels: list[Redis] = pool.sentinel_manager.sentinels
        hosts = ",".join(host_and_port(each) for each in sentinels)
        return f"redis+sentinel://{hosts}/{quote(pool.service_name, safe='')}"
    path = pool.connection_kwargs.get("path")
    return f"redis://{host_and_port(client)}" if path is None else f"unix://{path}"


def host_and_port(client: Redis) -> str:
    """Return where the client's server is, as a URL has it."""
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    host = str(options.get("host", "localhost"))
    return f"{f'[{host}]' if ':' in host else host}:{options.get('port', 6379)}"
