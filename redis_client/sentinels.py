"""redis-py's Sentinel client with deadlines, and with errors that contain each sentinel's answer."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from redis_client.addresses import client_cause, host_and_port
from redis_client.retrying import no_retry

SENTINEL_SECONDS: Final = 1.0
"""The longest wait for one sentinel. Several are asked in turn while a relay's transaction is open."""


class Sentinels(Sentinel):
    """Finds the master as redis-py does: the first sentinel that knows a running one. It is asked first next time."""

    def __init__(self, addresses: Sequence[tuple[str, int]], **options: Any) -> None:  # noqa: ANN401 - redis-py's
        """Create a client for each sentinel; nothing is sent yet.

        Args:
            addresses: host and port of each.
            options: redis-py's, for user, password and TLS of the sentinels themselves.

        """
        options.update(socket_timeout=SENTINEL_SECONDS, socket_connect_timeout=SENTINEL_SECONDS, retry=no_retry())
        super().__init__(addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master.

        Raises:
            MasterNotFoundError: no sentinel names one; the text has each one's host, port and answer.

        """
        answers = []
        for sentinel in list(self.sentinels):
            where = host_and_port(sentinel)
            try:
                services: Any = sentinel.sentinel_masters()
            except (RedisError, OSError, ValueError) as exc:  # ValueError: a host that is not a valid name
                answers.append(client_cause(exc, sentinel).rstrip("."))
                continue
            state = services.get(service_name)
            if state is None:
                answers.append(f"{where}: it watches no service of this name")
            elif not self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                answers.append(f"{where}: it says that the master, {state['ip']}:{state['port']}, is down")
            else:
                self.sentinels = [sentinel, *(each for each in self.sentinels if each is not sentinel)]
                return state["ip"], state["port"]
        raise MasterNotFoundError(f"no sentinel names a master for the service {service_name!r}: {'; '.join(answers)}")


class MasterPool(SentinelConnectionPool):
    """Connections to the current master. Closing all of them also closes those to the sentinels."""

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Close the idle connections, and by default also those in use and those to the sentinels."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


def leave_replaced_master(*clients: Redis) -> None:
    """Ask the sentinels for the master, and close the clients' connections to any other server.

    After a planned failover or a freeze, the old master stays a master for some seconds, until the sentinels turn it
    into a replica. What is pushed there meanwhile is lost. With a single server, and while no sentinel names a
    master, nothing is done.
    """
    with suppress(RedisError, OSError, ValueError):
        for client in clients:
            pool: Any = client.connection_pool
            if isinstance(pool, SentinelConnectionPool):
                pool.get_master_address()  # type: ignore[no-untyped-call]
