"""Run schemathesis as a program of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from api.accounts.signup_tokens.signing import sign_token
from shared.database.connections import connect
from shared.links import sign, verification_link

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")
LINK_VARIABLE = "FUZZ_LINK"
EMAIL = "fuzz@example.com"


def usable_link(database_url: str, secret_key: str) -> str:
    """Create a user and the link that verifies its address. Return the link's query."""
    with connect(database_url, "fuzz") as connection:
        connection.execute(
            "INSERT INTO users (username, email, full_name, hashed_password) VALUES ('fuzz', %s, 'Fuzz', '!')", [EMAIL]
        )
        row = connection.execute(
            "INSERT INTO verify_emails (username, email, message_id, expires_at)"
            " VALUES ('fuzz', %s, 1, now() + interval '1 day') RETURNING id",
            [EMAIL],
        ).fetchone()
    assert row is not None
    return urlsplit(verification_link("http://localhost", row[0], sign([secret_key], row[0], EMAIL))).query


def usable_token(database_url: str, secret_key: str) -> str:
    """Create a user with an unverified address and return its signup token."""
    with connect(database_url, "fuzz") as connection:
        row = connection.execute(
            "INSERT INTO users (username, email, full_name, hashed_password)"
            " VALUES ('holder', 'holder@example.com', 'Holder', '!') RETURNING created_at"
        ).fetchone()
    assert row is not None
    return sign_token([secret_key], "holder", row[0])


def fuzz(
    api_url: str,
    folder: Path,
    link: str,
    token: str,
    *,
    examples: int,
    seed: int,
    phases: Sequence[str] = ("examples", "coverage", "fuzzing", "stateful"),
) -> subprocess.CompletedProcess[str]:
    """Send every operation so many requests, good and bad; what schemathesis says is the process's output.

    Args:
        api_url: where the API answers.
        folder: where schemathesis leaves what it remembers.
        link: the query of a link that can be used.
        token: a signup token; what is asked without one is schemathesis's own matter.
        examples: requests of each operation in the last of its phases.
        seed: what makes the requests the same again.
        phases: where its requests come from; `coverage` are the values at each limit, and takes the longest.

    """
    command: list[str | Path] = [
        Path(sys.executable).with_name("st"),
        "--config-file",
        CONFIG,
        "run",
        f"{api_url}/openapi.json",
    ]
    options = ["--checks", "all", "--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none"]
    options += ["--phases", ",".join(phases)]
    return subprocess.run(
        [*command, *options, "--no-color", "--header", f"Authorization: Bearer {token}"],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            LINK_VARIABLE: link,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def failures(log: str) -> list[str]:
    """Return the lines of the API's log that report a failure of ours."""
    return [line for line in log.splitlines() if "request.failed" in line or "Traceback" in line or '" 500 ' in line]
