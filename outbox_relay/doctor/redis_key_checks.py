"""Checks the keys in Redis: their types, the relay's marker, and whether workers are suspended."""

from collections.abc import Iterator
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

from outbox_relay.doctor.findings import Finding, fault, ok, warning
from redis_client.addresses import client_cause
from shared.outbox.messages import QUEUES
from shared.rq_format.keys import MARKER_CHARACTERS, Keys, is_marker

_CHECK: Final = "redis keys"
_ABSENT: Final = "none"


def check_keys(client: Redis, key_prefix: str) -> Iterator[Finding]:
    """Check the type of each key, the relay's marker, and RQ's suspension. Raises RedisError."""
    keys = Keys(key_prefix)
    try:
        wrong = [*_wrong_types(client, keys), *_strange_marker(client, keys.epoch_marker)]
        yield from wrong or [ok(_CHECK, "each has the right type")]
        yield from _suspension(client, keys.suspended)
    except ResponseError as exc:
        # A user that may not run these commands may still push.
        yield warning(_CHECK, f"they cannot be read: {client_cause(exc, client)}", "allow TYPE, GETRANGE and TTL")


def _wrong_types(client: Redis, keys: Keys) -> Iterator[Finding]:
    expected = {keys.queues: "set", keys.workers: "set"}
    for queue in QUEUES:
        expected |= {keys.queue(queue): "list", keys.workers_of(queue): "set"}
    with client.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        types: list[Any] = pipe.execute()
    for (key, wanted), found in zip(expected.items(), types, strict=True):
        name = found.decode()
        if name not in {wanted, _ABSENT}:
            yield fault(
                _CHECK,
                f"{key} is a {name} and has to be a {wanted}: relay and workers cannot use it",
                f"RENAME it, and find out which program writes it; RQ_KEY_PREFIX is now {keys.prefix}",
            )


def _strange_marker(client: Redis, key: str) -> Iterator[Finding]:
    kind: Any = client.type(key)
    if kind == b"none":
        return
    # Only as many bytes as a marker has: another program may have written a value of any size.
    start: Any = client.getrange(key, 0, MARKER_CHARACTERS) if kind == b"string" else b""
    if not is_marker(start):
        yield warning(
            _CHECK,
            f"{key} is not a relay's marker; the next push overwrites it",
            "find out which program writes it: each time, all published messages are looked up in Redis",
        )


def _suspension(client: Redis, key: str) -> Iterator[Finding]:
    seconds: Any = client.ttl(key)
    if seconds == -2:  # noqa: PLR2004 - Redis' word for a key that is not there
        return
    until = "until they are resumed" if seconds < 0 else f"for {seconds} s more"
    yield fault("workers", f"they are suspended {until}: they take no jobs", "rq resume")
