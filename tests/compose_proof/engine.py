"""A Docker engine in namespaces of its own, from Debian's packages."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until

ENGINE_RELEASE = "trixie"
"""Its Docker is version 26. Debian 12 has version 20, which does not know `start_interval`."""

ENGINE_PACKAGES = (
    "docker.io",
    "docker-cli",
    "docker-compose",
    "docker-buildx",
    "iptables",
    "iproute2",
    "ca-certificates",
)
_ENTER = Path(__file__).with_name("enter_engine.sh")
_CLONE_NEWNET = 0x40000000
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP = "outbox-compose-proof"
_STOP_SECONDS = 60


def missing() -> str | None:
    """Return what this machine lacks to run an engine, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "an engine of its own needs root on Linux"
    for program in ("mmdebstrap", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"no {program} on the PATH: apt-get install mmdebstrap util-linux"
    attempt = ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "--make-rprivate", "/"]
    done = subprocess.run(attempt, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"this machine allows no namespaces: {done.stderr.strip()}"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "this machine's kernel has no overlayfs: modprobe overlay"
    return None


class Engine:
    """Docker's engine, its command line and its Compose, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tree = folder / "engine"
        self._sockets = folder / "sockets"
        self._client = folder / "client"
        self._commands = folder / "bin"
        self._unshare: subprocess.Popen[bytes] | None = None

    def unpack(self) -> None:
        """Make the engine's tree and its client's plugins, unless they are there."""
        plugins = self._client / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        self._sockets.mkdir(exist_ok=True)
        if not (self._tree / "usr" / "sbin" / "dockerd").exists():
            shutil.rmtree(self._tree, ignore_errors=True)
            debian_tree(ENGINE_RELEASE, ENGINE_PACKAGES, self._tree)
        # A folder of its own: the tree's other programs do not run outside of it.
        command = self._commands / "docker"
        command.parent.mkdir(exist_ok=True)
        command.unlink(missing_ok=True)
        command.symlink_to(self._tree / "usr" / "bin" / "docker")
        for plugin in (self._tree / "usr" / "libexec" / "docker" / "cli-plugins").iterdir():
            shutil.copy(plugin, plugins)

    @contextmanager
    def running(self, *, own_network: bool) -> Iterator[None]:
        """Run the engine: in a network of its own that leads nowhere, or in the machine's, to build images."""
        if own_network:
            options = ["--default-address-pool", "base=172.30.0.0/16,size=24"]
        else:
            options = ["--bridge=none", "--iptables=false"]
        options += [f"--cgroup-parent=/{_CGROUP}"]
        log = self.folder / f"dockerd-{'own' if own_network else 'machine'}-network.log"
        # setpriv and --kill-child: whatever ends these tests ends the engine and its containers too.
        enter = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        enter += ["--net"] if own_network else []
        with log.open("wb") as output:
            self._unshare = subprocess.Popen(
                [*enter, "bash", str(_ENTER), str(self._tree), str(self._sockets), *options],
                stdout=output,
                stderr=output,
            )
        try:
            wait_until(lambda: self._answers(log), 60, f"the engine; its log is {log}")
            self._clear()
            yield
            self._clear()
        finally:
            self._stop()

    def docker(
        self,
        *arguments: str | Path,
        check: bool = True,
        folder: Path | None = None,
        stdin: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Docker's command line, and fail with what it printed where it fails."""
        done = subprocess.run(
            [str(self._commands / "docker"), *map(str, arguments)],
            cwd=folder or self.folder,
            env={**self.environment, **(variables or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}")
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with which `docker` on the PATH is this engine's."""
        return {
            "PATH": f"{self._commands}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "DOCKER_HOST": f"unix://{self._sockets / 'docker.sock'}",
            "DOCKER_CONFIG": str(self._client),
        }

    def kill_9(self, container: str) -> None:
        """Kill the container's first process as a crash would: `docker kill` would count as a stop by hand."""
        pid = self.docker("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
        subprocess.run(["nsenter", "--pid", "--target", str(self._first_process), "kill", "-9", pid], check=True)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Make this thread open its connections inside the engine's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self._first_process}/ns/net", os.O_RDONLY)
        try:
            _enter(libc, there)
            yield
        finally:
            _enter(libc, here)
            os.close(there)
            os.close(here)

    @property
    def _first_process(self) -> int:
        assert self._unshare is not None
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        return int(children[0])

    def _answers(self, log: Path) -> bool:
        assert self._unshare is not None
        assert self._unshare.poll() is None, log.read_text()
        return self.docker("version", check=False).returncode == 0

    def _clear(self) -> None:
        """Remove containers, networks and volumes, also those of a run that was killed; images stay."""
        for kind, remove in (("container", ["rm", "--force", "--volumes"]), ("volume", ["volume", "rm", "--force"])):
            found = self.docker(kind, "ls", "--quiet", *(["--all"] if kind == "container" else [])).stdout.split()
            if found:
                self.docker(*remove, *found)
        self.docker("network", "prune", "--force")

    def _stop(self) -> None:
        assert self._unshare is not None
        if self._unshare.poll() is None:
            os.kill(self._first_process, 15)
            try:
                self._unshare.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._unshare.kill()
                self._unshare.wait()
        self._unshare = None
        _remove_cgroups()


def _remove_cgroups() -> None:
    """Remove what the containers leave in the machine's cgroups: folders without a process, the deepest first."""
    ours = [*_CGROUPS.glob(_CGROUP), *_CGROUPS.glob(f"*/{_CGROUP}")]
    for folder in ours:
        for path, _, _ in os.walk(folder, topdown=False):
            Path(path).rmdir()


def debian_tree(release: str, packages: Sequence[str], target: Path) -> None:
    """Unpack a minimal Debian with these packages into a folder or a tar file; none of its services is started."""
    no_services = 'printf "#!/bin/sh\\nexit 101\\n" > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"'
    hook = f'mkdir -p "$1/usr/sbin"; {no_services}'
    options = ["--quiet", "--variant=minbase", f"--include={','.join(packages)}", f"--setup-hook={hook}"]
    subprocess.run(["mmdebstrap", *options, release, str(target)], check=True)


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
