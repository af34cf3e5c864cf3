"""Act as another user of this machine, who knows what is public: ports, names, command lines."""

import os
import pwd
import socket
import subprocess
from pathlib import Path

import pytest

from embedded.servers.postgres_files import binaries

AS_ROOT = os.geteuid() == 0


def run_as_stranger(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as the account `nobody`; where this process is not root, as this user without its environment."""
    entry = pwd.getpwnam("nobody")
    return subprocess.run(
        argv,
        user=entry.pw_uid if AS_ROOT else None,
        group=entry.pw_gid if AS_ROOT else None,
        extra_groups=[] if AS_ROOT else None,
        env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def refuses_programs(postgres_url: str) -> bool:
    """Return whether a stranger who knows the address cannot make PostgreSQL run a program."""
    program = "COPY (SELECT 1) TO PROGRAM 'true'"
    # Where nobody else can be played, what only this user could read is left out.
    address = postgres_url if AS_ROOT else postgres_url.partition("?")[0]
    ended = run_as_stranger(binaries() / "psql", "--no-password", "--no-psqlrc", "-d", address, "-c", program)
    return ended.returncode != 0 and "no password supplied" in ended.stderr


def files_open_to_strangers(folder: Path) -> list[str]:
    """Return which files of the folder a stranger may read who knows their names."""
    if not AS_ROOT:
        pytest.skip("only root can be somebody else")
    found = [file for file in folder.rglob("*") if file.is_file()]
    readable = run_as_stranger("/bin/sh", "-c", 'for file; do [ -r "$file" ] && echo "$file"; done', "sh", *found)
    return [str(Path(line).relative_to(folder)) for line in readable.stdout.splitlines()]


def refuses_commands(redis_port: int) -> bool:
    """Return whether Redis asks a client that knows only its port to log in first."""
    with socket.create_connection(("127.0.0.1", redis_port), timeout=5) as line:
        line.sendall(b"CONFIG SET dir /tmp\r\n")
        return line.recv(64).startswith(b"-NOAUTH")


def strangers_find(secret: str, folder: Path) -> bool:
    """Return whether a stranger finds the secret in the folder's files, or in the command line of any process."""
    if not AS_ROOT:
        pytest.skip("only root can be somebody else")
    if any(secret.encode() in line for line in _command_lines()):
        return True
    return run_as_stranger("/bin/grep", "-rsqF", secret, folder).returncode == 0


def _command_lines() -> list[bytes]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return found
