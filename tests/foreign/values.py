"""What others may write: any row that the schema may accept, and any value at each key of Redis that we read."""

from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st
from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier, Placeholder
from psycopg.types.json import Jsonb
from redis import Redis

from shared.outbox.messages import QUEUES, SendVerifyEmail, SendWelcomeEmail
from shared.rq_format.ids import job_id
from tests.redis_keys import KEYS

Row = dict[str, Any]

_INTEGERS: Final = st.one_of(st.integers(-1, 12), st.sampled_from([999_999_998, 999_999_999, 10**9, 2**31 - 1]))
_TIMES: Final = st.sampled_from(
    [
        *("infinity", "-infinity", "0001-01-01 00:00:00+00", "0044-03-15 00:00:00+00 BC", "9999-12-31 00:00:00+00"),
        *("10000-01-01", "294276-12-31", "1970-01-01 00:00:00+00", "now", "2020-02-29 12:00:00+14", "2100-01-01"),
    ]
)
_TEXTS: Final = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60),
    st.sampled_from(["", "x" * 200, "x" * 300, "\x1b[31m\r\n", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"]),
)
_JSON: Final = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        _TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
_FAILURES: Final = st.one_of(
    _JSON,
    st.lists(
        st.fixed_dictionaries({}, optional=dict.fromkeys(("at", "attempt", "reason", "maybe_accepted", "more"), _JSON)),
        max_size=25,
    ),
)
_UUIDS: Final = st.sampled_from([None, "00000000-0000-0000-0000-000000000001"])

_ALWAYS: Final = {
    "task": st.one_of(st.sampled_from([SendVerifyEmail.task, SendWelcomeEmail.task]), _TEXTS),
    "payload": st.one_of(st.just({"username": "alice"}), _JSON),
    "status": st.sampled_from(["pending", "published", "running", "dead"]),
}
_SOMETIMES: Final = {
    "id": st.sampled_from([-1, 0, 2**63 - 1, 2**31, 77]),
    "queue": st.sampled_from(["critical", "default"]),
    "due_at": _TIMES,
    "generation": _INTEGERS,
    "attempt": _INTEGERS,
    "max_retries": _INTEGERS,
    "claim_token": _UUIDS,
    "lease_until": _TIMES,
    "broker_epoch": _TEXTS,
    "last_error": _TEXTS,
    "failures": _FAILURES,
    "traceparent": _TEXTS,
    "created_at": _TIMES,
    "published_at": _TIMES,
    "claimed_at": _TIMES,
    "uid": _UUIDS,
}
_OF_STATUS: Final[dict[str, Row]] = {
    "pending": {},
    "published": {"broker_epoch": "e", "published_at": "now", "lease_until": "now"},
    "running": {
        "claim_token": "00000000-0000-0000-0000-000000000002",
        "claimed_at": "now",
        "lease_until": "now",
        "attempt": 1,
    },
    "dead": {"last_error": "a reason"},
}
_OF_OTHER_STATUS: Final = {"claim_token", "lease_until"}


def _completed(row: Row) -> Row:
    """Give the row what its state asks for, so that most rows are accepted."""
    asked = _OF_STATUS[row["status"]]
    kept = {name: value for name, value in row.items() if name not in _OF_OTHER_STATUS or name in asked}
    return {**asked, **{name: value for name, value in kept.items() if name != "claim_token" or value is not None}}


ROWS: Final = st.fixed_dictionaries(_ALWAYS, optional=_SOMETIMES).map(_completed)


def insert(connection: Connection[Any], row: Row) -> int | None:
    """Insert the row as somebody who may write every column; None when the schema refuses it."""
    values = {name: Jsonb(value) if name in {"payload", "failures"} else value for name, value in row.items()}
    statement = SQL("INSERT INTO outbox ({}) OVERRIDING SYSTEM VALUE VALUES ({}) RETURNING id").format(
        SQL(", ").join(map(Identifier, values)), SQL(", ").join(map(Placeholder, values))
    )
    try:
        found = connection.execute(statement, values).fetchone()
    except (errors.IntegrityError, errors.DataError):
        return None
    assert found is not None
    return int(found[0])


SHARED_KEYS: Final = (
    *map(KEYS.queue, QUEUES),
    *map(KEYS.failed, QUEUES),
    *map(KEYS.workers_of, QUEUES),
    *(KEYS.epoch_marker, KEYS.job_template, KEYS.queues, KEYS.workers, KEYS.worker("test"), KEYS.suspended),
    *(KEYS.job("77"), KEYS.results("77")),
)
"""Those that relay, worker and doctor read or write."""

_WRITERS: Final[dict[str, Callable[[Redis, str, bytes], object]]] = {
    "string": lambda redis, key, value: redis.set(key, value),
    "list": lambda redis, key, value: redis.rpush(key, value, b"77"),
    "hash": lambda redis, key, value: redis.hset(key, mapping={b"data": value, b"last_heartbeat": value}),
    "set": lambda redis, key, value: redis.sadd(key, value, KEYS.worker("test")),
    "sorted set": lambda redis, key, value: redis.zadd(key, {value: 1}),
    "stream": lambda redis, key, value: redis.xadd(key, {b"field": value}),
}
_BYTES: Final = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\xff", b"x" * 3000, job_id(77, 0).encode(), b"2026-01-01T00:00:00"])
)
VALUES: Final = st.dictionaries(
    st.sampled_from(SHARED_KEYS), st.tuples(st.sampled_from(sorted(_WRITERS)), _BYTES), max_size=len(SHARED_KEYS)
)


def plant(redis: Redis, values: dict[str, tuple[str, bytes]]) -> None:
    """Write the values over whatever is there."""
    for key, (kind, value) in values.items():
        redis.delete(key)
        _WRITERS[kind](redis, key, value)
