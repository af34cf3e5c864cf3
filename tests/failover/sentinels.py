"""A master, its replica, and sentinels that watch both: real ones, of the `redis-server` that runs the two."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.servers.redis import RedisServer, redis_binary
from tests.waiting import wait_until

SERVICE = "outbox"

REPLICATE_AT_ONCE = {"repl-diskless-sync-delay": "0"}
"""A master waits for five seconds by default, for other replicas that may come."""

_SECONDS = 60.0
_CONFIGURATION = """
port {port}
bind {loopback}
dir {folder}
sentinel monitor {service} {loopback} {master} {quorum}
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 10000
"""


class Sentinels:
    """Watch a master; they are asked at `url`."""

    def __init__(
        self, folder: Path, master: RedisServer, *, count: int = 1, password: str = "", master_password: str = ""
    ) -> None:
        """Start them.

        Args:
            folder: for their files.
            master: what they watch.
            count: how many.
            password: what they want to hear themselves.
            master_password: what the master wants to hear.

        """
        self.ports = [free_port() for _ in range(count)]
        self._password = password
        self._master_password = master_password
        lines = [f"requirepass {password}"] if password else []
        lines += [f"sentinel auth-pass {SERVICE} {master_password}"] if master_password else []
        self.programs = [
            Program(_command(folder / f"sentinel-{port}", port, master.port, count // 2 + 1, lines))
            for port in self.ports
        ]
        for program in self.programs:
            program.start()
        wait_until(lambda: self.master_port() == master.port, _SECONDS, "the sentinels to watch the master")

    @property
    def url(self) -> str:
        """What RQ_REDIS_URL says."""
        return self.url_with()

    def url_with(self, *, service: str = SERVICE, password: str | None = None) -> str:
        """Return the same with something wrong."""
        login = f":{self._master_password}@" if self._master_password else ""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.ports)
        own = self._password if password is None else password
        return f"redis+sentinel://{login}{hosts}/{service}/0" + (f"?sentinel_password={own}" if own else "")

    def master_port(self) -> int | None:
        """Return where the master of the moment is; None while they do not agree."""
        try:
            ports = {self._named_port(port) for port in self.ports}
        except (RedisError, OSError, TypeError):
            return None
        return ports.pop() if len(ports) == 1 else None

    def know(self, replica: RedisServer) -> bool:
        """Return whether each of them knows the replica, in step, and all the others."""
        try:
            return all(self._knows(port, replica) for port in self.ports)
        except (RedisError, OSError):
            return False

    def order_failover(self) -> None:
        """Promote the replica, as an operator does before work on the old one."""
        with self._client(self.ports[0]) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", SERVICE)

    def stop(self) -> None:
        """End them."""
        for program in self.programs:
            program.kill()

    def _named_port(self, port: int) -> int:
        with self._client(port) as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(SERVICE)[1])

    def _knows(self, port: int, replica: RedisServer) -> bool:
        with self._client(port) as sentinel:
            replicas = sentinel.sentinel_slaves(SERVICE)
            others = sentinel.sentinel_sentinels(SERVICE)
        in_step = [each["port"] for each in replicas if each["master-link-status"] == "ok"]
        return (in_step, len(others)) == ([replica.port], len(self.ports) - 1)

    def _client(self, port: int) -> Redis:
        return Redis(host=LOOPBACK, port=port, password=self._password or None, socket_timeout=2, decode_responses=True)


class WatchedPair:
    """A master and a replica in step, with sentinels that promote it."""

    def __init__(self, folder: Path, *, count: int = 1) -> None:
        """Start all of it."""
        self.first = RedisServer(folder / "first", append_only=False, settings=REPLICATE_AT_ONCE)
        self.first.start()
        self.second = RedisServer(
            folder / "second", append_only=False, settings=REPLICATE_AT_ONCE, password=self.first.password
        )
        self.second.start()
        with self.second.client() as client:
            client.replicaof(LOOPBACK, self.first.port)
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", _SECONDS, "the replica")
        self.sentinels = Sentinels(folder, self.first, count=count, master_password=self.first.password)
        wait_until(lambda: self.sentinels.know(self.second), _SECONDS, "the sentinels to know the replica")

    @property
    def url(self) -> str:
        """What RQ_REDIS_URL says."""
        return self.sentinels.url

    def wait_for_promotion(self) -> None:
        """Return when the replica is the master, and the sentinels say so."""
        wait_until(lambda: self.sentinels.master_port() == self.second.port, _SECONDS, "the sentinels to promote it")
        wait_until(lambda: role(self.second) == "master", _SECONDS, "the replica to be the master")

    def stop(self) -> None:
        """End all of it."""
        self.sentinels.stop()
        self.second.kill()
        self.first.kill()


@contextmanager
def watched_pair(folder: Path, *, count: int = 1) -> Iterator[WatchedPair]:
    """Run all of it."""
    pair = WatchedPair(folder, count=count)
    try:
        yield pair
    finally:
        pair.stop()


def role(server: RedisServer) -> str:
    """Return what the server says that it is."""
    with server.client() as client:
        return str(client.info("replication")["role"])


def _command(folder: Path, port: int, master: int, quorum: int, lines: Sequence[str]) -> Command:
    folder.mkdir(parents=True)
    file = folder / "sentinel.conf"
    text = _CONFIGURATION.format(
        port=port, loopback=LOOPBACK, folder=folder, service=SERVICE, master=master, quorum=quorum
    )
    file.write_text("\n".join([text, *lines, ""]))
    argv: list[str | Path] = [redis_binary(), file, "--sentinel"]
    return Command("Sentinel", argv, {"PATH": "/usr/bin:/bin", "LANG": "C"}, folder, folder / "sentinel.log")
