"""`doctor` beside strange keys in Redis, and with a Redis user that may not run everything."""

import os
from typing import Any

import pytest

from tests.addresses import with_login
from tests.outbox_relay.commands.running import run_json
from tests.outbox_relay.doctor.installation import Installation, warnings
from tests.redis_keys import KEYS


@pytest.mark.parametrize("value", [b"\xff", b"x" * 40_000, b"", None])
def test_a_marker_that_is_none_is_named(healthy: Installation, value: bytes | None) -> None:
    key = KEYS.epoch_marker
    if value is None:
        healthy.redis.rpush(key, "somebody else's")
    else:
        healthy.redis.set(key, value)

    assert any("is not a relay's marker" in message for message in warnings())


def test_a_redis_user_that_may_not_look_at_keys_is_told_so(healthy: Installation) -> None:
    healthy.redis.execute_command("ACL", "SETUSER", "relay", "on", ">secret", "~*", "+@all", "-type")
    healthy.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "relay:secret"))

    assert any("cannot be read" in message and "NOPERM" in message for message in warnings())


def test_what_others_wrote_where_workers_show_themselves_is_no_obstacle(healthy: Installation) -> None:
    names = KEYS.workers
    healthy.redis.sadd(f"{names}:critical", b"\xff", f"{names}:critical", KEYS.worker("two"))
    healthy.redis.hset(KEYS.worker("two"), "last_heartbeat", "2020-01-01")
    healthy.redis.delete(f"{names}:default")
    healthy.redis.set(f"{names}:default", "x")

    found = {(each["check"], each["severity"]) for each in run_json("doctor")}

    assert {("workers", "fault"), ("redis", "ok")} <= found


def test_a_redis_that_refuses_info_is_not_called_away(healthy: Installation) -> None:
    rights: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"], "commands": ["-info"]}
    healthy.redis.acl_setuser("no-info", enabled=True, passwords=["+x"], **rights)
    healthy.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "no-info:x"))

    [finding] = [each for each in run_json("doctor") if each["check"] == "redis"]

    assert (finding["severity"], "INFO is refused" in finding["message"]) == ("warning", True)


@pytest.mark.parametrize(
    ("refused", "check", "severity", "message"),
    [
        (["-time"], "clocks", "warning", "Redis refuses TIME"),
        (["-smembers"], "workers", "skipped", "this user may not read those of critical"),
        (["-hget"], "workers", "skipped", "this user may not read those of critical"),
        (["-evalsha"], "redis", "fault", "this user may not push"),
        (["-ping"], "redis", "fault", "it cannot be used"),
    ],
)
def test_what_a_redis_user_may_not_run_is_named_and_nothing_else_blamed(
    healthy: Installation, refused: list[str], check: str, severity: str, message: str
) -> None:
    rights: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"], "commands": refused}
    healthy.redis.acl_setuser("limited", enabled=True, passwords=["+x"], **rights)
    healthy.set("RQ_REDIS_URL", with_login(os.environ["RQ_REDIS_URL"], "limited:x"))

    found = run_json("doctor")

    named = [
        each for each in found if each["check"] == check and message in each["message"] and "NOPERM" in each["message"]
    ]
    assert [each["severity"] for each in named][:1] == [severity], found
    assert [each for each in found if each["severity"] == "fault" and each not in named] == []
    assert not any("start Redis" in each["fix"] for each in found)
