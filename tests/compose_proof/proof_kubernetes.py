"""Each container of the Kubernetes manifests, run by the engine as its manifest says."""

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compose_proof.engine import Engine
from tests.compose_proof.running import PROJECT, Composed
from tests.compose_proof.stand_ins import IMAGE
from tests.deploy.test_kubernetes import RESOURCES, WORKLOADS
from tests.waiting import wait_until

SERVERS = ("postgres", "redis", "mailpit")
NETWORK = f"{PROJECT}_default"
PASSWORD = secrets.token_hex(16)
SECRET = {
    "DATABASE_URL": f"postgresql://outbox:{PASSWORD}@postgres:5432/outbox",
    "RQ_REDIS_URL": "redis://redis:6379/0",
    "SECRET_KEY": secrets.token_hex(32),
    "SMTP_URL": "smtp://mailpit:1025",
}
LASTING = ("api", "relay", "worker")


@dataclass
class Pod:
    """A container, and the one that holds its process namespace, as `shareProcessNamespace` asks for."""

    engine: Engine
    name: str
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        [only] = self.spec["containers"]
        found: dict[str, Any] = only
        return found

    def start(self, *, wait: bool) -> subprocess.CompletedProcess[str]:
        """Run it with the manifest's command, environment, limits and permissions, and with nothing else."""
        container = self.container
        options = ["--network", NETWORK, "--memory", container["resources"]["limits"]["memory"].removesuffix("i")]
        security = self.spec["securityContext"] | container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert not re.match(r"(|0|root)(:|$)", self.user), f"runAsNonRoot refuses {self.user!r}"
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        options += ["--security-opt", "no-new-privileges", "--read-only"]
        options += [f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]]
        for mount in container.get("volumeMounts", []):
            options += ["--tmpfs", f"{mount['mountPath']}:mode=1777"]
        for variable in container["env"]:
            options += ["--env", f"{variable['name']}={value(variable)}"]
        if self.spec.get("shareProcessNamespace"):
            pause = f"{self.name}-pause"
            self.engine.docker(
                "run", "--detach", "--name", pause, "--init", "compose-proof/debian", "sleep", "infinity"
            )
            options += [f"--pid=container:{pause}"]
        options += [] if wait else ["--detach"]
        command, *arguments = container["command"]
        return self.engine.docker(
            "run", "--name", self.name, *options, "--entrypoint", command, IMAGE, *arguments, check=False
        )

    @property
    def user(self) -> str:
        return self.engine.docker("image", "inspect", "--format", "{{.Config.User}}", IMAGE).stdout.strip()

    def inspect(self, template: str) -> str:
        return self.engine.docker("inspect", "--format", template, self.name).stdout.strip()

    def logs(self) -> str:
        done = self.engine.docker("logs", self.name)
        return done.stdout + done.stderr

    def passes(self, probe: str) -> bool:
        """Return what the kubelet would find."""
        described = self.container[probe]
        if "exec" in described:
            return self.engine.docker("exec", self.name, *described["exec"]["command"], check=False).returncode == 0
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        address = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        url = f"http://{address}:{ports[described['httpGet']['port']]}{described['httpGet']['path']}"
        with self.engine.network():
            try:
                return httpx.get(url, timeout=described.get("timeoutSeconds", 1)).status_code < 400
            except httpx.TransportError:
                return False


def value(variable: dict[str, Any]) -> str:
    """Return what Kubernetes puts into the variable."""
    if "value" in variable:
        return str(variable["value"])
    [(kind, reference)] = variable["valueFrom"].items()
    known = {"secretKeyRef": SECRET, "configMapKeyRef": RESOURCES["ConfigMap/outbox-signup"]["data"]}[kind]
    return str(known[reference["key"]])


@pytest.fixture(scope="module")
def servers(engine: Engine, project: Path) -> Iterator[Composed]:
    """PostgreSQL, Redis and a mail server, which the manifests leave to others; an empty database."""
    (project / ".env").write_text(
        f"SECRET_KEY={'k' * 64}\nPOSTGRES_PASSWORD={PASSWORD}\nMAIL_FROM=signup@example.com\n"
    )
    composed = Composed(engine, project)
    composed.compose("up", "--detach", "--wait", *SERVERS)
    yield composed
    composed.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def pods(servers: Composed) -> Iterator[dict[str, Pod]]:
    """The pods, in the order of docs/deployment.md: first the migration, until it is complete."""
    engine = servers.engine
    specs = {name.rpartition("-")[2]: each["spec"]["template"]["spec"] for name, each in WORKLOADS.items()}
    pods = {name: Pod(engine, f"pod-{name}", spec) for name, spec in specs.items()}
    migrated = pods["migrate"].start(wait=True)
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    for name in LASTING:
        started = pods[name].start(wait=False)
        assert started.returncode == 0, started.stderr
    yield pods
    names = engine.docker("ps", "--all", "--quiet", "--filter", "name=^pod-").stdout.split()
    engine.docker("rm", "--force", "--volumes", *names)


@pytest.mark.parametrize("name", LASTING)
def test_a_container_passes_its_probes(pods: dict[str, Pod], name: str) -> None:
    pod = pods[name]
    startup = pod.container.get("startupProbe", pod.container["livenessProbe"])
    limit_seconds = startup["periodSeconds"] * startup["failureThreshold"]

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in pod.container:
            wait_until(partial(pod.passes, probe), limit_seconds, f"{probe} of {name}: {pod.logs()}")


def test_a_signup_is_mailed(servers: Composed, pods: dict[str, Pod]) -> None:
    address = pods["api"].inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    body = {"username": "ada", "full_name": "Ada", "email": "ada@example.com", "password": "correct horse"}
    with servers.engine.network():
        signed_up = httpx.post(f"http://{address}:8080/v1/users", json=body, timeout=30)

    assert signed_up.status_code == 201, signed_up.text
    servers.wait_for_mails("ada")


@pytest.mark.parametrize("name", LASTING)
def test_a_container_stays_within_its_limits(pods: dict[str, Pod], name: str) -> None:
    assert pods[name].inspect("{{.State.OOMKilled}} {{.RestartCount}} {{.State.Running}}") == "false 0 true"


def test_an_outage_of_postgresql_takes_no_api_away_and_ends_nothing(servers: Composed, pods: dict[str, Pod]) -> None:
    servers.compose("stop", "postgres")
    try:
        wait_until(lambda: not pods["api"].passes("startupProbe"), 60, "the API to miss PostgreSQL")
        found = {
            (name, probe): pods[name].passes(probe)
            for name in LASTING
            for probe in ("readinessProbe", "livenessProbe")
            if probe in pods[name].container
        }
    finally:
        servers.compose("start", "postgres")

    assert [probe for probe, passes in found.items() if not passes] == []
    wait_until(lambda: pods["api"].passes("startupProbe"), 60, "the API to find PostgreSQL again")


@pytest.mark.parametrize("name", LASTING)
def test_a_container_stops_within_its_grace_period(pods: dict[str, Pod], name: str) -> None:
    pod = pods[name]
    pre_stop = pod.container.get("lifecycle", {}).get("preStop")
    began = time.monotonic()
    if pre_stop:
        assert pod.engine.docker("exec", pod.name, *pre_stop["exec"]["command"]).returncode == 0
    left = pod.spec["terminationGracePeriodSeconds"] - (time.monotonic() - began)
    pod.engine.docker("stop", f"--time={int(left)}", pod.name)

    assert pod.inspect("{{.State.ExitCode}}") == "0", pod.logs()
