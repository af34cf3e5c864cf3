"""The keys that relay and workers share in Redis, often with other programs: each of its type, and nobody suspended."""

import re
from collections.abc import Iterator
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

from outbox_relay.doctor.findings import Finding, fault, ok, warning
from redis_client.addresses import client_cause
from shared.outbox.messages import QUEUES
from shared.rq_format.write import MARKER_CHARACTERS

_CHECK: Final = "redis keys"
_MARKER: Final = re.compile(rb"[0-9A-Fa-f]{%d}" % MARKER_CHARACTERS)
_ABSENT: Final = "none"


def check_keys(client: Redis, key_prefix: str) -> Iterator[Finding]:
    """Look at the type of each key, at the relay's marker, and at RQ's suspension. Raises RedisError."""
    try:
        wrong = [*_wrong_types(client, key_prefix), *_strange_marker(client, f"{key_prefix}:outbox:epoch")]
        yield from wrong or [ok(_CHECK, "each holds what it should")]
        yield from _suspension(client, f"{key_prefix}:suspended")
    except ResponseError as exc:
        # A user that may not run these commands may still push.
        yield warning(_CHECK, f"they cannot be looked at: {client_cause(exc, client)}", "allow TYPE, GETRANGE and TTL")


def _wrong_types(client: Redis, key_prefix: str) -> Iterator[Finding]:
    expected = {f"{key_prefix}:queues": "set", f"{key_prefix}:workers": "set"}
    for queue in QUEUES:
        expected |= {f"{key_prefix}:queue:{queue}": "list", f"{key_prefix}:workers:{queue}": "set"}
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
                f"RENAME it, and find out who writes there; a prefix of one's own is RQ_KEY_PREFIX, now {key_prefix}",
            )


def _strange_marker(client: Redis, key: str) -> Iterator[Finding]:
    kind: Any = client.type(key)
    if kind == b"none":
        return
    # No more of it than a marker has: what somebody else put there may be of any size.
    start: Any = client.getrange(key, 0, MARKER_CHARACTERS) if kind == b"string" else b""
    if not _MARKER.fullmatch(start):
        yield warning(
            _CHECK,
            f"{key} holds something else than a relay's marker; the next push writes one over it",
            "find out who writes there: each time all published messages are looked for in Redis",
        )


def _suspension(client: Redis, key: str) -> Iterator[Finding]:
    seconds: Any = client.ttl(key)
    if seconds == -2:  # noqa: PLR2004 - Redis' word for a key that is not there
        return
    until = "until somebody resumes them" if seconds < 0 else f"for {seconds} s more"
    yield fault("workers", f"they are suspended {until}: they take no job", "rq resume")
