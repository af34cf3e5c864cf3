"""An installation in good health, and what `doctor` says about it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from redis import Redis

from tests.outbox_relay.commands.running import run, run_json
from tests.redis_keys import KEYS

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass
class Installation:
    """A service in good health, until a test plants a fault."""

    connection: Connection
    redis: Redis
    monkeypatch: pytest.MonkeyPatch

    def sql(self, statement: str) -> None:
        self.connection.execute(statement)

    def set(self, name: str, value: str) -> None:
        self.monkeypatch.setenv(name, value)


def show_worker(client: Redis) -> None:
    """Do what a worker does to be seen."""
    key = KEYS.worker("one")
    client.hset(key, "last_heartbeat", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    for queue in ("critical", "default"):
        client.sadd(KEYS.workers_of(queue), key)


def faults() -> dict[str, str]:
    """Run `doctor` as a program does, and return what is at fault; the exit code has to agree."""
    ended = run("doctor", "--json")
    assert ended.stdout, ended.output
    found = {each["check"]: each["message"] for each in json.loads(ended.stdout) if each["severity"] == "fault"}
    assert ended.exit_code == (1 if found else 0), ended.output
    return found


def warnings() -> list[str]:
    """Run `doctor` where nothing is at fault, and return what it warns of."""
    found = run_json("doctor")
    assert [each for each in found if each["severity"] == "fault"] == []
    return [each["message"] for each in found if each["severity"] == "warning"]


def schema_of(at: Installation) -> str:
    row = at.connection.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])
