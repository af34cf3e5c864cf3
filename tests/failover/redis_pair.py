"""A Redis pair with three sentinels, whose master is replaced because it dies, is stopped, or is asked to.

The service gets the addresses of the sentinels; nothing stands between it and the servers.
"""

import os
import signal
from pathlib import Path

from redis.exceptions import RedisError

from embedded.servers.redis import RedisServer
from shared.outbox.messages import QUEUES
from tests.failover.sentinels import WatchedPair, role
from tests.redis_keys import KEYS
from tests.waiting import wait_until

_SENTINELS = 3
_SECONDS = 60.0


class RedisPair(WatchedPair):
    """A master, its replica and three sentinels."""

    def __init__(self, folder: Path) -> None:
        """Start all of it, with the replica in step."""
        super().__init__(folder, count=_SENTINELS)

    def freeze_replication(self) -> None:
        """Make the replica fall behind: stop it, and cut the connection to it."""
        os.kill(self.second.pid, signal.SIGSTOP)
        with self.first.client() as client:
            client.client_kill_filter(_type="replica")

    def kill_master(self) -> int:
        """Kill the master, wait until the sentinels have promoted the replica; return how many jobs it never got."""
        before = waiting_jobs(self.first)
        self.first.kill()
        os.kill(self.second.pid, signal.SIGCONT)
        self.wait_for_promotion()
        return len(before - waiting_jobs(self.second))

    def freeze_master(self) -> None:
        """Stop the master, with its sockets open, until the sentinels have promoted the replica."""
        os.kill(self.first.pid, signal.SIGSTOP)
        self.wait_for_promotion()

    def thaw_old_master(self) -> None:
        """Continue the stopped server."""
        os.kill(self.first.pid, signal.SIGCONT)

    def order_promotion(self) -> None:
        """Make the sentinels replace a master that works, and wait until they have."""
        self.sentinels.order_failover()
        self.wait_for_promotion()

    def clients_left_behind(self) -> int:
        """Count the service's connections to the old master, which calls itself one for some seconds more."""
        with self.first.client() as client:
            own = client.client_id()
            others = [each for each in client.client_list() if int(each["id"]) != own]
        return len([each for each in others if "sentinel-" not in each["name"] and each["flags"] == "N"])

    def wait_until_old_master_is_replica(self) -> None:
        """Return when the sentinels have turned it into one."""
        wait_until(self._old_master_is_replica, _SECONDS, "the old master to be a replica")

    def _old_master_is_replica(self) -> bool:
        try:
            return role(self.first) == "slave"
        except RedisError:
            return False  # the sentinels cut all connections then


def waiting_jobs(server: RedisServer) -> set[bytes]:
    """Return the ids of the jobs that stand in the lists."""
    with server.client() as client:
        return {job for queue in QUEUES for job in client.lrange(KEYS.queue(queue), 0, -1)}
