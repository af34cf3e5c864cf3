"""Redis behind a real Sentinel: the relay, workers of both classes, RQ's commands and `doctor`."""

import json
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from redis import Redis
from ruamel.yaml import YAML

from embedded.mail_catcher import MailCatcher
from embedded.programs import Program
from embedded.redis import RedisServer
from redis_client.addresses import host_and_port
from redis_client.opening import open_redis
from shared.database import connect
from shared.sentinel_url import CONNECTION_CLASS
from tests import processes
from tests.failover.sentinels import Sentinels
from tests.preloading import Preloaded
from tests.processes import OUTBOX_WORKER, events, worker_settings
from tests.rows import add_message, add_user, message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

WAIT = 20.0
RELAY = [sys.executable, "-m", "outbox_relay"]
RQ = [sys.executable, "-m", "rq.cli"]
WORKER = [*RQ, "worker", "critical", "default"]

OF_MASTER, OF_SENTINEL = "of-master", "of-sentinel"

RQ_SETTINGS = """
SENTINEL = {{
    "INSTANCES": [("127.0.0.1", {port})],
    "MASTER_NAME": "outbox",
    "PASSWORD": "of-master",
    "SENTINEL_KWARGS": {{"password": "of-sentinel", "socket_timeout": 1}},
}}
"""


@dataclass
class Watched:
    """A server with a password, and a sentinel with another one that watches it."""

    master: RedisServer
    sentinels: Sentinels


@dataclass
class Service:
    """A database with a user, and the service's commands, which find Redis by `settings`."""

    database_url: str
    settings: dict[str, str]
    origin: Preloaded
    folder: Path

    def __post_init__(self) -> None:
        self.connection = connect(self.database_url, "test")
        add_user(self.connection)

    def run(self, argv: list[str], **settings: str | None) -> CompletedProcess[str]:
        """Run a command that ends by itself; None takes a setting away."""
        return processes.run(argv, self._with(settings), self._log_file(), self.origin)

    @contextmanager
    def started(self, argv: list[str], **settings: str | None) -> Iterator[Program]:
        with processes.started(argv, self._with(settings), self._log_file(), self.origin) as program:
            yield program

    def examine(self, check: str = "redis", **settings: str | None) -> list[dict[str, str]]:
        """Return what `doctor` finds at a check of that name."""
        examined = self.run([*RELAY, "doctor", "--json"], **settings).stdout
        return [each for each in json.loads(examined.splitlines()[-1]) if each["check"] == check]

    def add(self, count: int = 1) -> list[int]:
        return [add_message(self.connection, queue="critical") for _ in range(count)]

    def statuses(self, ids: list[int]) -> set[object]:
        return {message(self.connection, id_)["status"] for id_ in ids}

    def wait_for_done(self, ids: list[int]) -> None:
        wait_until(lambda: self.statuses(ids) == {"done"}, WAIT, "the messages to be done")

    def close(self) -> None:
        self.connection.close()

    def _with(self, settings: Mapping[str, str | None]) -> dict[str, str]:
        return {name: text for name, text in {**self.settings, **settings}.items() if text is not None}

    def _log_file(self) -> Path:
        return self.folder / f"{secrets.token_hex(4)}.log"


@pytest.fixture(scope="module")
def started_once(server_folder: Path) -> Iterator[Watched]:
    master = RedisServer(server_folder / "watched")
    start_with_password(master)
    sentinels = Sentinels(server_folder / "sentinel", master, password=OF_SENTINEL, master_password=OF_MASTER)
    try:
        yield Watched(master, sentinels)
    finally:
        sentinels.stop()
        master.kill()


@pytest.fixture
def watched(started_once: Watched) -> Watched:
    with Redis(port=started_once.master.port, password=OF_MASTER) as client:
        client.flushall()
    return started_once


@pytest.fixture
def service(
    database_url: str, watched: Watched, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> Iterator[Service]:
    settings = {
        **worker_settings(database_url, watched.sentinels.url, mailbox.smtp_url),
        "RQ_CONNECTION_CLASS": CONNECTION_CLASS,
        "RQ_WORKER_CLASS": OUTBOX_WORKER,
    }
    with closing(Service(database_url, settings, origin, tmp_path)) as opened:
        yield opened


def start_with_password(master: RedisServer) -> None:
    master.start()
    with master.client() as client:
        client.config_set("requirepass", OF_MASTER)


def told(program: Program, event: str) -> str:
    """Return the error of the first such line."""
    [line] = wait_until(lambda: [line for line in events(program) if line["event"] == event], WAIT, event)
    return str(line["error"])


def test_every_command_finds_the_master(service: Service) -> None:
    ids = service.add(2)
    relayed = service.run([*RELAY, "--once"])
    assert (relayed.returncode, service.statuses(ids)) == (0, {"published"}), relayed.stdout

    listed = service.run([*RQ, "info"])
    ended = service.run([*WORKER, "--burst", "--max-jobs", "1"])
    stock = service.run([*WORKER, "--burst"], RQ_WORKER_CLASS=None)

    assert (listed.returncode, "2 jobs total" in listed.stdout) == (0, True), listed.stdout
    assert (ended.returncode, stock.returncode) == (0, 0), ended.stdout + stock.stdout
    assert service.statuses(ids) == {"done"}
    assert [each["verdict"] for each in service.examine()] == ["ok"]


def test_a_sentinel_that_is_silent_holds_up_one_connection_alone(watched: Watched) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        first = f"127.0.0.1:{silent.getsockname()[1]}"
        good = f"127.0.0.1:{watched.sentinels.ports[0]}"
        with closing(open_redis(watched.sentinels.url.replace(good, f"{first},{good}"))) as client:
            assert client.ping()

            asked: Any = client.connection_pool
            assert [host_and_port(each) for each in asked.sentinel_manager.sentinels] == [good, first]


def test_rq_s_own_settings_serve_its_commands(service: Service, watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "rq_settings.py").write_text(RQ_SETTINGS.format(port=watched.sentinels.ports[0]))
    of_rq = ["--config", "rq_settings", "--path", str(tmp_path)]
    alone = {"RQ_REDIS_URL": None, "RQ_CONNECTION_CLASS": None}
    ids = service.add(2)
    assert service.run([*RELAY, "--once"], RQ_CONNECTION_CLASS=None).returncode == 0

    listed = service.run([*RQ, "info", *of_rq], **alone)
    ended = service.run([*WORKER, *of_rq, "--burst", "--max-jobs", "1"], **alone)
    stock = service.run([*WORKER, *of_rq, "--burst"], **alone, RQ_WORKER_CLASS=None)

    assert (listed.returncode, "2 jobs total" in listed.stdout) == (0, True), listed.stdout
    assert (ended.returncode, stock.returncode) == (0, 0), ended.stdout + stock.stdout
    assert service.statuses(ids) == {"done"}


@pytest.mark.parametrize("command", ["worker", "info"])
def test_without_the_connection_class_its_name_is_told(service: Service, command: str) -> None:
    stopped = service.run([*RQ, command], RQ_CONNECTION_CLASS=None)

    assert stopped.returncode == 2
    assert f"RQ_CONNECTION_CLASS: has to be {CONNECTION_CLASS}" in stopped.stdout
    assert ["Traceback" in stopped.stdout, "of-master" in stopped.stdout] == [False, False]


def test_doctor_looks_at_the_connection_class(service: Service) -> None:
    found = {
        given: [each["verdict"] for each in service.examine("settings", RQ_CONNECTION_CLASS=given)]
        for given in (CONNECTION_CLASS, None, "redis.Redis")
    }

    assert found == {CONNECTION_CLASS: ["ok"], None: ["ok", "skipped"], "redis.Redis": ["ok", "warning"]}


def test_the_workers_health_checks_find_it(service: Service, tmp_path: Path) -> None:
    with service.started(WORKER) as worker:
        wait_until(lambda: [line for line in events(worker) if line["event"] == "worker_started"], WAIT, "the worker")

        for code in health_checks():
            checked = processes.run([sys.executable, "-c", code], service.settings, tmp_path / "health.log")
            assert (checked.returncode, checked.stdout) == (0, "")


def health_checks() -> list[str]:
    """Return the code of those that look for the worker in Redis: of compose.yaml and of the Kubernetes manifest."""
    yaml = YAML(typ="safe")
    compose = yaml.load(processes.ROOT / "compose.yaml")["services"]["worker"]
    manifests = yaml.load_all(processes.ROOT / "deploy/kubernetes/worker.yaml")
    [pod] = [each["spec"]["template"]["spec"] for each in manifests if each["kind"] == "Deployment"]
    [container] = pod["containers"]
    codes = [compose["healthcheck"]["test"][-1], container["livenessProbe"]["exec"]["command"][-1]]
    assert all("RQ_REDIS_URL" in code for code in codes)
    return codes


def test_a_malformed_url_on_rq_s_command_line_is_told(service: Service) -> None:
    stopped = service.run([*RQ, "info", "--url", "redis+sentinel://:of-master@localhost"], RQ_WORKER_CLASS=None)

    assert (stopped.returncode, "name of the service" in stopped.stdout) == (1, True), stopped.stdout
    assert ["Traceback" in stopped.stdout, "of-master" in stopped.stdout] == [False, False]


@pytest.mark.parametrize("fault", ["service", "password", "master"])
def test_what_the_sentinel_said_is_told_and_nothing_is_lost(service: Service, watched: Watched, fault: str) -> None:
    where = f"127.0.0.1:{watched.sentinels.ports[0]}"
    of_master = f"127.0.0.1:{watched.master.port}"
    url, cause = {
        "service": (watched.sentinels.url_with(service="other"), "'other': {}: it watches no service of this name"),
        "password": (watched.sentinels.url_with(password="wrong"), "'outbox': {}: WRONGPASS "),  # noqa: S106
        "master": (watched.sentinels.url, f"'outbox': {{}}: it says that the master, {of_master}, is down"),
    }[fault]
    cause = cause.format(where)
    ids = service.add(2)
    if fault == "master":
        watched.master.stop()
        wait_until(lambda: cause in service.run([*RELAY, "--once"]).stdout, WAIT, "the sentinel to notice")

    with service.started(RELAY, RQ_REDIS_URL=url) as relay, service.started(WORKER, RQ_REDIS_URL=url) as worker:
        assert (cause in told(relay, "outage"), cause in told(worker, "waiting_for_redis")) == (True, True)
        [found] = service.examine(RQ_REDIS_URL=url)
        assert (found["verdict"], cause in found["says"]) == ("fault", True), found
        assert (service.statuses(ids), relay.running, worker.running) == ({"pending"}, True, True)
        if fault == "master":
            start_with_password(watched.master)
            service.wait_for_done(ids)

    assert {message(service.connection, id_)["attempt"] for id_ in ids} == {int(fault == "master")}
