"""Debian's packages: where their programs are, and what is missing of them."""

import os
import shutil
from pathlib import Path
from typing import Final

from tests.world import postfix

REDIS: Final = Path("/usr/bin/redis-server")

_POSTGRES: Final = Path("/usr/lib/postgresql")


def missing() -> list[str]:
    """Return the reasons why the servers cannot be started here."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("only root can lend Postfix and PostgreSQL their accounts: run it as root")
    if postgres_programs() is None:
        reasons.append(f"no PostgreSQL in {_POSTGRES}: it is in Debian's package `postgresql`")
    if not REDIS.exists():
        reasons.append(f"no {REDIS}: it is in Debian's package `redis-server`")
    if shutil.which("pgbouncer", path="/usr/bin:/usr/sbin") is None:
        reasons.append("no pgbouncer: it is in Debian's package of this name")
    if not postfix.PROGRAM.exists():
        reasons.append(f"no {postfix.PROGRAM}: it is in Debian's package `postfix`")
    return reasons


def postgres_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, None if there is none."""
    found = [server.parent for server in _POSTGRES.glob("*/bin/postgres") if server.parts[-3].isdecimal()]
    return max(found, key=lambda programs: int(programs.parts[-2]), default=None)
