"""Two Redis servers that change places as in a planned failover: the demoted one lives on and keeps its clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.programs.ports import LOOPBACK
from embedded.servers.redis import RedisServer
from tests.failover.forwarder import Forwarder
from tests.failover.sentinels import REPLICATE_AT_ONCE
from tests.waiting import wait_until

_SECONDS = 20.0


class DemotableRedis:
    """What the service talks to is `url`, a name that leads to the primary of the moment."""

    def __init__(self, folder: Path) -> None:
        """Start both, with the replica in step."""
        self.first = RedisServer(folder / "first", append_only=False, settings=REPLICATE_AT_ONCE)
        self.first.start()
        self.second = RedisServer(
            folder / "second", append_only=False, settings=REPLICATE_AT_ONCE, password=self.first.password
        )
        self.second.start()
        with self.second.client() as client:
            client.replicaof(LOOPBACK, self.first.port)
            wait_until(
                lambda: client.info("replication")["master_link_status"] == "up", _SECONDS, "the replica to be in step"
            )
        self._name = Forwarder(self.first.port)
        self.url = f"redis://:{self.first.password}@{LOOPBACK}:{self._name.port}/0"

    def demote(self) -> None:
        """Promote the second server, which has all data of the first. No connection to the first is cut."""
        with self.first.client() as client:
            client.wait(1, 10_000)
        with self.second.client() as client:
            client.replicaof("NO", "ONE")
        with self.first.client() as client:
            client.replicaof(LOOPBACK, self.second.port)
        self._name.lead_to(self.second.port, cut=False)

    def stop(self) -> None:
        """End both."""
        self._name.close()
        self.first.kill()
        self.second.kill()


@contextmanager
def demotable_redis(folder: Path) -> Iterator[DemotableRedis]:
    """Run both."""
    redis = DemotableRedis(folder)
    try:
        yield redis
    finally:
        redis.stop()
