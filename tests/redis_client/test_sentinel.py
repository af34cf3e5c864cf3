"""Redis behind a real Sentinel: the relay, workers of both classes, RQ's commands and `doctor`."""

import json
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from ruamel.yaml import YAML

from embedded.mail.catcher import MailCatcher
from embedded.programs.program import Program
from embedded.servers.redis import RedisServer
from redis_client.addresses import host_and_port
from redis_client.opening import open_redis
from shared.database.connections import connect
from shared.settings.sentinel_url import CONNECTION_CLASS, parse_sentinel_url
from tests.failover.sentinels import Sentinels
from tests.programs import processes
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER, events, worker_settings
from tests.rows import add_message, add_user, message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

WAIT = 20.0
RELAY = [sys.executable, "-m", "outbox_relay"]
RQ = [sys.executable, "-m", "rq.cli"]
WORKER = [*RQ, "worker", "critical", "default"]

OF_MASTER, OF_SENTINEL = "of-master", "of-sentinel"

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (processes.ROOT / "docs/operations/sentinel.md").read_text(), re.DOTALL)
PROGRAMS = {".venv/bin/python": [sys.executable], ".venv/bin/rq": RQ}
UNTIL_DONE = {"outbox_relay": ["--once"], "worker": ["--burst", "--max-jobs", "1"]}
"""What lets a command end by itself, after its last word here."""


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

    def run_line(self, line: str, *options: str, **settings: str | None) -> CompletedProcess[str]:
        """Run a line of the documentation, as something that ends by itself."""
        words = shlex.split(line)
        while "=" in words[0]:
            name, _, text = words.pop(0).partition("=")
            settings[name] = text
        argv = [*PROGRAMS[words[0]], *words[1:], *options]
        for word, more in UNTIL_DONE.items():
            argv += more if word in argv and "doctor" not in argv else []
        return self.run(argv, **settings)

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
    master = RedisServer(server_folder / "watched", password=OF_MASTER)
    master.start()
    sentinels = Sentinels(server_folder / "sentinel", master, password=OF_SENTINEL, master_password=OF_MASTER)
    try:
        yield Watched(master, sentinels)
    finally:
        sentinels.stop()
        master.kill()


@pytest.fixture
def watched(started_once: Watched) -> Watched:
    with started_once.master.client() as client:
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


def error_of(program: Program, event: str) -> str:
    """Return the error of the first such line."""
    [line] = wait_until(lambda: [line for line in events(program) if line["event"] == event], WAIT, event)
    return str(line["error"])


def blocks(language: str) -> list[str]:
    """Return what docs/operations/sentinel.md prints in this language."""
    return [text for name, text in BLOCKS if name == language]


def test_the_documented_commands_find_the_master(service: Service) -> None:
    settings = dict(line.removeprefix("export ").split("=", 1) for line in blocks("sh")[0].splitlines())
    assert parse_sentinel_url(settings["RQ_REDIS_URL"].strip("'")).service == "outbox"
    ids = service.add(2)

    ended = {
        line: service.run_line(line, RQ_CONNECTION_CLASS=settings["RQ_CONNECTION_CLASS"], RQ_WORKER_CLASS=None)
        for line in blocks("sh")[1].splitlines()
    }

    # The session's PostgreSQL has fsync off, which doctor calls a fault.
    assert {line: run.returncode for line, run in ended.items()} == {line: int("doctor" in line) for line in ended}
    assert service.statuses(ids) == {"done"}
    assert len(ended) == 5
    [info] = [run.stdout for line, run in ended.items() if line.endswith("info")]
    assert "0 jobs total" in info
    assert [each["severity"] for each in service.examine()] == ["ok"]


def test_a_sentinel_that_is_silent_holds_up_one_connection_alone(watched: Watched) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        first = f"127.0.0.1:{silent.getsockname()[1]}"
        good = f"127.0.0.1:{watched.sentinels.ports[0]}"
        with closing(open_redis(watched.sentinels.url.replace(good, f"{first},{good}"))) as client:
            assert client.ping()

            asked: Any = client.connection_pool
            assert [host_and_port(each) for each in asked.sentinel_manager.sentinels] == [good, first]


def test_rq_s_own_settings_serve_its_commands(service: Service, watched: Watched, tmp_path: Path) -> None:
    [module] = blocks("python")
    for documented, here in {
        r"\[\(.*\)\]": f'[("127.0.0.1", {watched.sentinels.ports[0]})]',
        '"user"': '"default"',
        '"password",': f'"{OF_MASTER}",',
        "the sentinels' own": OF_SENTINEL,
    }.items():
        module, count = re.subn(documented, here, module)
        assert count == 1, documented
    (tmp_path / "rq_settings.py").write_text(module)
    ids = service.add(2)
    assert service.run([*RELAY, "--once"], RQ_CONNECTION_CLASS=None).returncode == 0
    worker, info = blocks("sh")[2].splitlines()
    alone = {"RQ_REDIS_URL": None, "RQ_CONNECTION_CLASS": None}

    for line, worker_class in ((info, OUTBOX_WORKER), (worker, OUTBOX_WORKER), (worker, None)):
        ended = service.run_line(line, "--path", str(tmp_path), **alone, RQ_WORKER_CLASS=worker_class)
        assert ended.returncode == 0, ended.stdout

    assert service.statuses(ids) == {"done"}


@pytest.mark.parametrize("command", ["worker", "info"])
def test_without_the_connection_class_its_name_is_told(service: Service, command: str) -> None:
    stopped = service.run([*RQ, command], RQ_CONNECTION_CLASS=None)

    assert stopped.returncode == 2
    assert f"RQ_CONNECTION_CLASS: has to be {CONNECTION_CLASS}" in stopped.stdout
    assert ["Traceback" in stopped.stdout, "of-master" in stopped.stdout] == [False, False]


def test_doctor_looks_at_the_connection_class(service: Service) -> None:
    found = {
        given: [each["severity"] for each in service.examine("settings", RQ_CONNECTION_CLASS=given)]
        for given in (CONNECTION_CLASS, None, "redis.Redis")
    }

    assert found == {CONNECTION_CLASS: ["ok"], None: ["ok", "skipped"], "redis.Redis": ["ok", "warning"]}


def test_the_workers_health_checks_find_it(service: Service, tmp_path: Path) -> None:
    with service.started(WORKER) as worker:
        wait_until(lambda: [line for line in events(worker) if line["event"] == "worker.started"], WAIT, "the worker")

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
        errors = [error_of(program, "redis.unavailable") for program in (relay, worker)]
        assert [error for error in errors if cause not in error] == []
        [found] = service.examine(RQ_REDIS_URL=url)
        assert (found["severity"], cause in found["message"]) == ("fault", True), found
        assert (service.statuses(ids), relay.running, worker.running) == ({"pending"}, True, True)
        if fault == "master":
            start_with_password(watched.master)
            service.wait_for_done(ids)

    assert {message(service.connection, id_)["attempt"] for id_ in ids} == {int(fault == "master")}
