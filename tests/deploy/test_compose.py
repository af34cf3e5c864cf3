"""compose.yaml, held against the specification and against what the tests themselves run.

Whatever can be known without a Docker engine is checked here; `make compose-proof` runs the file on one.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path, PurePath
from typing import Any

import pytest
from ruamel.yaml import YAML

from consumer.threaded.outbox_worker import OutboxWorker
from embedded.programs.program import Program
from embedded.stack import ROOT, Ports, Stack
from shared.settings.api import read_api_settings
from shared.settings.consumer import read_consumer_settings
from shared.settings.relay import read_relay_settings

SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]
READERS: dict[str, Callable[[], object]] = {
    "api": read_api_settings,
    "relay": read_relay_settings,
    "worker": read_consumer_settings,
}
OURS = sorted(READERS)
ONE_SHOT = "schema"
LASTING = sorted(SERVICES.keys() - {ONE_SHOT})
FROM_A_REGISTRY = sorted(name for name in SERVICES if "build" not in SERVICES[name])
SHIPPED = {
    "postgres": re.compile(r"\d+\.\d+-[a-z]+"),
    "redis": re.compile(r"\d+\.\d+\.\d+-[a-z]+"),
    "axllent/mailpit": re.compile(r"v\d+\.\d+\.\d+"),
}
"""What a full version looks like in the tags of each image: one that no later build of another version gets."""

MEGABYTE = 1024 * 1024
UNITS = {"mb": MEGABYTE, "m": MEGABYTE, "g": 1024 * MEGABYTE}
READ_BY_OTHERS = {
    "PGPASSWORD",  # libpq, in every connection
    "PORT",  # gunicorn.conf.py
    "RQ_CONNECTION_CLASS",  # rq
    "RQ_WORKER_CLASS",  # rq
    "RATE_LIMIT_EXEMPT",  # shared/settings/rate_limits.py, for read_api_settings
}
BEHIND_A_GATEWAY = {"TRUSTED_PROXIES", "RATE_LIMIT_EXEMPT"}
"""A laptop's API is reached directly; one in a container through Docker's gateway."""
OF_THE_CALLER = {"OUTBOX_TASKS", "PYTHONPATH", "TEMPLATES_FOLDER"}
"""What `make up` passes on to the worker if it has it."""
SECRET_NAME = re.compile("PASSWORD|SECRET|KEY|TOKEN")
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+}")
WITH_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """What `make up` and the tests run; nothing of it is started."""
    ports = Ports(api=1, mailbox=2, smtp=3, postgres=4, redis=5)
    return Stack(tmp_path_factory.mktemp("stack"), secret_key="k" * 43, ports=ports)


def program(stack: Stack, service: str) -> Program:
    found: Program = getattr(stack, service)
    return found


def environment(service: str) -> dict[str, str]:
    """Return what the service is given always."""
    given: dict[str, str | None] = SERVICES[service].get("environment", {})
    return {name: text for name, text in given.items() if text is not None}


def passed_on(service: str) -> set[str]:
    """Return the names of what the service is given only if .env has it."""
    given: dict[str, str | None] = SERVICES[service].get("environment", {})
    return given.keys() - environment(service).keys()


def as_in_a_container(argv: Sequence[str | Path]) -> list[str]:
    """Name the programs by what is on the PATH there, and leave out the address for a laptop."""
    words = [str(word) for word in argv]
    words[0] = "python" if words[0] == sys.executable else PurePath(words[0]).name
    if words[:3] == ["python", "-m", "gunicorn"]:
        words = words[2:]
    if "--bind" in words:
        at = words.index("--bind")
        words = words[:at] + words[at + 2 :]
    return words


def filled_in(text: str) -> str:
    """Return what Compose makes of a value when .env holds what docs/deployment.md writes into it."""
    made = {"SECRET_KEY": "k" * 43, "MAIL_FROM": "Signup <signup@example.com>", "POSTGRES_PASSWORD": "secret"}
    return WITH_DEFAULT.sub(r"\2", REQUIRED.sub(lambda match: made[match[1]], text))


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def in_bytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", size).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def test_it_follows_the_compose_specification() -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]

    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", OURS)
def test_a_process_is_started_as_the_tests_start_it(service: str, stack: Stack) -> None:
    expected = as_in_a_container(program(stack, service).command.argv)

    assert expected == SERVICES[service]["command"]


@pytest.mark.parametrize("service", OURS)
def test_a_process_gets_the_variables_that_the_tests_give_it(service: str, stack: Stack) -> None:
    expected = program(stack, service).command.env.keys() - {"PATH", "HOME", "LANG"} - OF_THE_CALLER

    given = environment(service).keys() | passed_on(service)
    assert expected == given - {"PGPASSWORD"} - BEHIND_A_GATEWAY - OF_THE_CALLER


@pytest.mark.parametrize("service", OURS)
def test_what_a_process_is_given_is_enough_for_it_to_start(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in environment(service).items():
        monkeypatch.setenv(name, filled_in(text))

    READERS[service]()


@pytest.mark.parametrize("gateway", ["172.17.0.1", "172.31.0.1", "192.168.48.1"])
def test_a_proxy_that_speaks_for_everybody_is_not_limited(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in environment("api").items():
        monkeypatch.setenv(name, filled_in(text))

    assert any(ip_address(gateway) in network for network in read_api_settings().rate_limits.exempt)


@pytest.mark.parametrize("service", OURS)
def test_no_process_gets_a_variable_that_nothing_reads(service: str) -> None:
    known = set(re.findall('"([A-Z][A-Z_]+)"', inspect.getsource(READERS[service])))

    assert (environment(service).keys() | passed_on(service)) - known - READ_BY_OTHERS == set()


def test_the_worker_class_is_the_project_s_own() -> None:
    module, _, name = environment("worker")["RQ_WORKER_CLASS"].rpartition(".")

    assert getattr(importlib.import_module(module), name) is OutboxWorker


def test_no_secret_stands_in_the_file() -> None:
    secrets = {
        (service, name): text
        for service in SERVICES
        for name, text in environment(service).items()
        if SECRET_NAME.search(name)
    }

    assert {place for place, text in secrets.items() if not REQUIRED.fullmatch(text)} == set()
    assert {name for _, name in secrets} == {"POSTGRES_PASSWORD", "PGPASSWORD", "SECRET_KEY"}
    assert re.findall(r"\w+://[^/@\s]*:[^/@\s]*@", (ROOT / "compose.yaml").read_text()) == []


@pytest.mark.parametrize("service", LASTING)
def test_what_ends_is_started_again_and_what_is_unhealthy_is_shown(service: str) -> None:
    assert SERVICES[service]["restart"] == "always"
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"


def test_the_tables_are_brought_up_to_date_before_the_processes_start() -> None:
    """By our own image: nothing is read from the machine that Compose runs on, and nothing of PostgreSQL's is made."""
    schema = SERVICES[ONE_SHOT]

    assert schema["image"] == SERVICES["api"]["image"]
    assert schema["restart"] == "no"
    assert schema["command"] == ["alembic", "upgrade", "head"]
    assert schema["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert [SERVICES[service]["depends_on"] for service in OURS] == [
        {ONE_SHOT: {"condition": "service_completed_successfully"}} for _ in OURS
    ]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_nothing_is_read_from_the_machine_that_compose_runs_on(service: str) -> None:
    """With a remote engine its folders are not there, and under umask 077 a container may not read them."""
    volumes = SERVICES[service].get("volumes", [])

    assert [volume for volume in volumes if volume.startswith((".", "/", "~"))] == []


@pytest.mark.parametrize("image", [SERVICES[name]["image"] for name in FROM_A_REGISTRY])
def test_an_image_of_a_registry_is_pinned_to_a_full_version(image: str) -> None:
    name, _, tag = image.partition(":")

    assert SHIPPED[name].fullmatch(tag)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_has_limits_of_memory_and_of_logs(service: str) -> None:
    assert in_bytes(SERVICES[service]["mem_limit"]) >= 256 * MEGABYTE
    assert SERVICES[service]["logging"] == {"driver": "local", "options": {"max-size": "10m", "max-file": "5"}}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_may_do_as_little_as_it_can_do_with(service: str) -> None:
    described = SERVICES[service]
    user = described.get("user", "").partition(":")[0]

    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert user not in {"0", "root"}
    assert user or "build" in described  # the Dockerfile names a user of its own
    assert "privileged" not in described


def test_only_the_api_and_the_mailbox_are_reachable_and_only_from_this_machine() -> None:
    published = {service: SERVICES[service]["ports"] for service in SERVICES if "ports" in SERVICES[service]}

    assert published == {
        "api": ["127.0.0.1:8080:8080"],
        "api-overlap": ["127.0.0.1:8081:8080"],
        "mailpit": ["127.0.0.1:8025:8025"],
    }
    assert environment("api")["PORT"] == "8080"


def test_the_api_of_an_overlap_is_the_api_at_another_port() -> None:
    overlap = {**SERVICES["api-overlap"]}

    assert (overlap.pop("profiles"), overlap.pop("ports")) == (["overlap"], ["127.0.0.1:8081:8080"])
    assert overlap == {name: value for name, value in SERVICES["api"].items() if name != "ports"}


def test_a_worker_that_is_stopped_may_finish_its_send(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in environment("worker").items():
        monkeypatch.setenv(name, filled_in(text))
    leave_seconds = 5
    needed = read_consumer_settings().send_deadline_seconds + leave_seconds

    assert seconds(SERVICES["worker"]["stop_grace_period"]) > needed


def test_redis_keeps_what_it_acknowledged_and_forgets_nothing_when_it_is_full(stack: Stack) -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert (command[0], options.pop("--maxmemory")) == ("redis-server", "256mb")
    assert options == {"--appendonly": "yes", "--maxmemory-policy": "noeviction"}
    assert SERVICES["redis"]["volumes"] == ["redis-data:/data"]


def test_redis_is_full_before_its_container_is() -> None:
    """noeviction applies at maxmemory alone; past the container's limit the kernel kills Redis."""
    command = SERVICES["redis"]["command"]
    full = in_bytes(command[command.index("--maxmemory") + 1])

    assert 2 * full <= in_bytes(SERVICES["redis"]["mem_limit"])


@pytest.mark.parametrize("service", OURS)
def test_a_health_check_finds_what_it_imports(service: str) -> None:
    code = ast.parse(SERVICES[service]["healthcheck"]["test"][-1])
    imports = [node for node in ast.walk(code) if isinstance(node, ast.ImportFrom)]

    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert [name.name for name in node.names if not hasattr(module, name.name)] == []
