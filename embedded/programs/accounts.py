"""The unprivileged account that PostgreSQL runs as when root starts it."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from embedded.errors import EmbeddedError

# Accounts that every system has and that own nothing. Not `postgres`: where it exists it owns real data.
_CANDIDATES = ("nobody", "daemon", "bin")


@dataclass(frozen=True)
class Account:
    """A user and its group by number."""

    uid: int
    gid: int


@cache
def unprivileged_account() -> Account | None:
    """Return the account for PostgreSQL if this process is root, else None: PostgreSQL runs as this process's user."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(entry.pw_uid, entry.pw_gid)
        # In a container with few mapped users a process may not be able to switch to an account that is listed.
        if may_enter(Path("/"), account):
            return account
    raise EmbeddedError(f"PostgreSQL does not run as root and none of the accounts {_CANDIDATES} can be used")


def may_enter(folder: Path, account: Account | None) -> bool:
    """Return whether the account (None: this process) may enter the folder, by trying it.

    Permission bits alone do not show access lists and mount options.
    """
    if account is None:
        return os.access(folder, os.X_OK)
    try:
        attempt = subprocess.run(
            ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return attempt.returncode == 0
