"""A primary Redis, a replica, and a Sentinel that promotes it; the address follows."""

import os
import signal
import threading
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX

from embedded.ports import LOOPBACK, free_port
from embedded.programs import Command, Program
from embedded.redis import RedisServer, redis_binary
from shared.messages import QUEUES
from tests.failover.forwarder import Forwarder
from tests.waiting import wait_until

_NAME = "outbox"
_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_CONFIGURATION = """
port {port}
bind {loopback}
dir {folder}
sentinel monitor {name} {loopback} {primary} 1
sentinel down-after-milliseconds {name} 1000
sentinel failover-timeout {name} 10000
"""


class RedisPair:
    """What the service talks to is `url`; it leads to whoever Sentinel calls the primary."""

    def __init__(self, folder: Path) -> None:
        """Start all of it, with the replica in step."""
        self.primary = RedisServer(folder / "primary", append_only=False)
        self.primary.start()
        self.replica = RedisServer(folder / "replica", append_only=False)
        self.replica.start()
        with self.replica.client() as client:
            client.replicaof(LOOPBACK, self.primary.port)
        self._sentinel_port = free_port()
        self._sentinel = Program(self._sentinel_command(folder / "sentinel"))
        self._sentinel.start()
        self._forwarder = Forwarder(self.primary.port)
        self._stopping = threading.Event()
        threading.Thread(target=self._follow, name="follow-sentinel", daemon=True).start()
        wait_until(self._knows_the_replica, _SECONDS, "Sentinel to know the replica")

    @property
    def url(self) -> str:
        """The address of the primary of the moment."""
        return f"redis://{LOOPBACK}:{self._forwarder.port}/0"

    def freeze_replication(self) -> None:
        """Let the replica fall behind: it stands still, and what is on its way to it is cut off."""
        os.kill(self.replica.pid, signal.SIGSTOP)
        with self.primary.client() as client:
            client.client_kill_filter(_type="replica")

    def fail_over(self) -> int:
        """Kill the primary, wait until Sentinel has promoted the replica; return how many jobs it never got."""
        before = waiting_jobs(self.primary)
        self.primary.kill()
        os.kill(self.replica.pid, signal.SIGCONT)
        wait_until(lambda: self._primary_port() == self.replica.port, _SECONDS, "Sentinel to promote the replica")
        wait_until(lambda: self._role() == "master", _SECONDS, "the replica to be the primary")
        return len(before - waiting_jobs(self.replica))

    def stop(self) -> None:
        """End all of it."""
        self._stopping.set()
        self._forwarder.close()
        self._sentinel.stop()
        self.replica.kill()
        self.primary.kill()

    def _sentinel_command(self, folder: Path) -> Command:
        folder.mkdir()
        file = folder / "sentinel.conf"
        file.write_text(
            _CONFIGURATION.format(
                port=self._sentinel_port, loopback=LOOPBACK, folder=folder, name=_NAME, primary=self.primary.port
            )
        )
        argv = [redis_binary(), file, "--sentinel"]
        return Command("Sentinel", argv, {"PATH": "/usr/bin:/bin", "LANG": "C"}, folder, folder / "sentinel.log")

    def _follow(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            port = self._primary_port()
            if port is not None:
                self._forwarder.lead_to(port)

    def _primary_port(self) -> int | None:
        try:
            with self._ask_sentinel() as sentinel:
                return int(sentinel.sentinel_get_master_addr_by_name(_NAME)[1])
        except (RedisError, OSError, TypeError):
            return None

    def _knows_the_replica(self) -> bool:
        try:
            with self._ask_sentinel() as sentinel:
                replicas = sentinel.sentinel_slaves(_NAME)
        except (RedisError, OSError):
            return False
        return [each["port"] for each in replicas if each["master-link-status"] == "ok"] == [self.replica.port]

    def _ask_sentinel(self) -> Redis:
        return Redis(host=LOOPBACK, port=self._sentinel_port, socket_timeout=2, decode_responses=True)

    def _role(self) -> str:
        with self.replica.client() as client:
            return str(client.info("replication")["role"])


def waiting_jobs(server: RedisServer) -> set[bytes]:
    """Give the ids of the jobs that stand in the lists."""
    with server.client() as client:
        return {job for queue in QUEUES for job in client.lrange(f"{RQ_KEY_PREFIX}:queue:{queue}", 0, -1)}
