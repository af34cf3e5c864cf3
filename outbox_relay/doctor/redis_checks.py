"""Checks Redis: role, memory, persistence and clock, and whether each queue has a worker."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from outbox_relay.broker import SOCKET_SECONDS
from outbox_relay.doctor.findings import Finding, fault, ok, skipped, warning
from outbox_relay.doctor.postgresql_checks import compare_clocks
from outbox_relay.doctor.redis_key_checks import check_keys
from redis_client.addresses import client_cause
from redis_client.opening import open_redis
from shared.outage_causes import redis_cause
from shared.outbox.messages import QUEUES
from shared.rq_format.keys import Keys

_LOWEST_VERSION: Final = (6, 2)
_FULL: Final = 0.9
_NO_SCRIPT: Final = "0" * 40
_WRONG_TYPE: Final = "WRONGTYPE"
_HEARTBEAT_SECONDS: Final = 480
"""RQ's stock worker writes a heartbeat before and after each pop, which waits for up to 405 s."""


def check_redis(redis_url: str, key_prefix: str) -> Iterator[Finding]:
    """Check Redis, and the workers that are registered there."""
    client = open_redis(redis_url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS)
    with closing(client):
        try:
            client.ping()
            yield from _check_server(client)
            yield from _check_push(client)
            yield _check_clock(client)
            yield from check_keys(client, key_prefix)
            for queue in QUEUES:
                yield _check_workers(client, key_prefix, queue)
        except (RedisError, OSError, ValueError) as exc:  # ValueError: a host that is not a valid name
            cause = redis_cause(exc, redis_url)
            refused = isinstance(exc, NoPermissionError)
            fix = "let this Redis user run it (ACL SETUSER)" if refused else "start Redis, or fix RQ_REDIS_URL"
            yield fault("redis", f"it cannot be used: {cause}", fix)


def _check_server(client: Redis) -> Iterator[Finding]:
    try:
        info: Any = client.info()
    except ResponseError as exc:
        yield warning(
            "redis",
            f"it answers, but INFO is refused ({type(exc).__name__}): its version, role and settings are not known",
            "let this Redis user run INFO (ACL SETUSER … +info)",
        )
    else:
        yield from _check_info(info)


def _check_push(client: Redis) -> Iterator[Finding]:
    """Call a script that does not exist, to see whether this user may run the script that pushes."""
    try:
        client.evalsha(_NO_SCRIPT, 0)
    except NoScriptError:
        pass
    except NoPermissionError as exc:
        yield fault(
            "redis",
            f"this user may not push: {client_cause(exc, client)}",
            "let it run scripts (ACL SETUSER … +@scripting), or fix RQ_REDIS_URL",
        )


def _check_info(info: dict[str, Any]) -> Iterator[Finding]:
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _LOWEST_VERSION:
        yield fault("redis", f"version {version}", "use 6.2 or newer")
    if info.get("role") != "master":
        yield fault("redis", "this is a replica: it takes no writes", "name the primary in RQ_REDIS_URL")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield fault(
            "redis eviction",
            f"maxmemory-policy is {policy}: a full Redis drops jobs, which is noticed only when their lease is over",
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        )
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        yield fault("redis persistence", "its last write to the disk failed: it may refuse commands", "read its log")
    limit = int(info.get("maxmemory", 0))
    if limit and int(info["used_memory"]) > limit * _FULL:
        yield warning("redis memory", "more than 90% is used", "raise maxmemory, or start more workers")
    kept = (
        "append-only file" if info.get("aof_enabled") else "no append-only file: after a restart, jobs are pushed again"
    )
    yield ok("redis", f"version {version}, {kept}")


def _check_clock(client: Redis) -> Finding:
    before = time.time()
    try:
        reply: Any = client.time()
    except ResponseError as exc:
        return warning(
            "clocks",
            f"Redis refuses TIME: {client_cause(exc, client)}",
            "let this Redis user run TIME (ACL SETUSER … +time)",
        )
    return compare_clocks("Redis", reply[0] + reply[1] / 1e6 - (before + time.time()) / 2)


def _check_workers(client: Redis, key_prefix: str, queue: str) -> Finding:
    """Check the workers of a queue that RQ has registered."""
    try:
        keys = _members(client, Keys(key_prefix).workers_of(queue))
        seen = [moment for key in keys if (moment := _last_seen(client, key)) is not None]
    except ResponseError as exc:
        return skipped("workers", f"this user may not read those of {queue}: {client_cause(exc, client)}")
    alive = [moment for moment in seen if (datetime.now(UTC) - moment).total_seconds() < _HEARTBEAT_SECONDS]
    if not alive:
        return fault("workers", f"no worker is alive for {queue}", "start one: rq worker critical default")
    youngest = (datetime.now(UTC) - max(alive)).total_seconds()
    return ok("workers", f"{len(alive)} for {queue}, seen {max(0.0, youngest):.0f} s ago")


def _last_seen(client: Redis, key: bytes) -> datetime | None:
    """Return the time of a worker's heartbeat, or None for a key of another type. Raises ResponseError."""
    try:
        text: Any = client.hget(cast("str", key), "last_heartbeat")  # another program may have written bytes
        moment = datetime.fromisoformat(text.decode()) if text else None
    except ValueError:  # a value of another program
        return None
    except ResponseError as exc:
        if str(exc).startswith(_WRONG_TYPE):
            return None
        raise
    return None if moment is None else moment.replace(tzinfo=moment.tzinfo or UTC)


def _members(client: Redis, key: str) -> set[bytes]:
    """Return a set's members, none for a key of another type. Raises ResponseError."""
    try:
        members: Any = client.smembers(key)
    except ResponseError as exc:
        if str(exc).startswith(_WRONG_TYPE):
            return set()
        raise
    return set(members)
