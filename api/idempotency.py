"""A request that names itself with an Idempotency-Key is carried out once, however often it is sent.

Follows draft-ietf-httpapi-idempotency-key-header. Guarantee: the outcome is kept by the transaction that brought it
about. A crash before its commit leaves neither, and the next attempt begins anew; after it the next attempt is told the
same. A key counts for 24 hours. Rows past that are deleted by the next requests with a key, some of the oldest each.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, Final

from flask import Request
from sqlalchemy import Connection, Delete, Select, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from api.problems import ProblemError
from shared.models import idempotency_keys

HEADER: Final = "Idempotency-Key"
KEPT_HOURS: Final = 24
KEY_PATTERN: Final = r'"[ !#-\[\]-~]{1,255}"|[A-Za-z0-9._~:/+=-]{1,255}'
"""A string as structured fields have it (RFC 9651), without escapes; its quotation marks may be left out."""

MALFORMED: Final = (
    f"{HEADER} has to be a string in quotation marks, of 1 to 255 printable ASCII characters: send a UUID."
)
IN_FLIGHT: Final = f"Another request with this {HEADER} is being worked on: repeat it in a moment."
USED: Final = f"This {HEADER} was sent with another body before: use a new key for a new request."
"""What clients are told."""

_KEPT: Final = timedelta(hours=KEPT_HOURS)
_DELETED_AT_ONCE: Final = 20
_SALT: Final = b"outbox-signup.idempotency\n"
_LOCK_PREFIX: Final = "idempotency:"


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The name of a request, and what tells its body from others.

    Attributes:
        name: as the client chose it.
        body_hmacs: HMACs of the body, one by each secret key: a password cannot be guessed from what is kept.

    """

    name: str
    body_hmacs: tuple[bytes, ...] = field(repr=False)


def read_key(request: Request, body: Mapping[str, Any], secret_keys: Sequence[str]) -> RequestKey | None:
    """Read the header, if there is one. Raises ProblemError when it is malformed."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not re.fullmatch(KEY_PATTERN, given):
        raise ProblemError(400, MALFORMED)
    # The same values in another order or with other blanks are the same body.
    content = _SALT + json.dumps(body, sort_keys=True).encode("ascii")
    hmacs = tuple(hmac.digest(key.encode(), content, hashlib.sha256) for key in secret_keys)
    return RequestKey(given.strip('"'), hmacs)


def find_outcome(connection: Connection, key: RequestKey) -> dict[str, Any] | None:
    """Take the key for this transaction and give what came of it earlier, or None the first time.

    Raises ProblemError when another request holds it, or had it with another body. The key is an advisory lock: it ends
    with the transaction and is never waited for. Two statements, since the second has to see what was committed before
    the first got the lock.
    """
    is_ours = connection.execute(_take(), {"lock": f"{_LOCK_PREFIX}{key.name}"}).scalar_one()
    if not is_ours:
        raise ProblemError(409, IN_FLIGHT, headers={"Retry-After": "1"})
    row = connection.execute(_kept(), {"key": key.name}).one_or_none()
    if row is None:
        return None
    if not any(hmac.compare_digest(row.body_hmac, ours) for ours in key.body_hmacs):
        raise ProblemError(422, USED)
    outcome: dict[str, Any] = row.outcome
    return outcome


def keep_outcome(connection: Connection, key: RequestKey, outcome: Mapping[str, Any]) -> None:
    """Keep what came of the request, in its own transaction."""
    connection.execute(keep_statement(), {"key": key.name, "body_hmac": key.body_hmacs[0], "outcome": dict(outcome)})
    connection.execute(forget_statement())


@cache
def _take() -> Select[Any]:
    lock = func.pg_try_advisory_xact_lock(func.hashtextextended(bindparam("lock"), 0))
    return select(lock)


@cache
def _kept() -> Select[Any]:
    return select(idempotency_keys.c.body_hmac, idempotency_keys.c.outcome).where(
        idempotency_keys.c.key == bindparam("key"), idempotency_keys.c.created_at > func.now() - _KEPT
    )


@cache
def keep_statement() -> Insert:
    """Build the statement that writes the row, over one of the same key that is past its time."""
    statement = postgresql_insert(idempotency_keys).values(
        {name: bindparam(name) for name in ("key", "body_hmac", "outcome")}
    )
    columns = ("body_hmac", "outcome", "created_at")
    return statement.on_conflict_do_update(
        index_elements=["key"], set_={name: statement.excluded[name] for name in columns}
    )


@cache
def forget_statement() -> Delete:
    """Build the statement that deletes some of the keys that count no longer."""
    oldest = (
        select(idempotency_keys.c.key)
        .where(idempotency_keys.c.created_at <= func.now() - _KEPT)
        .order_by(idempotency_keys.c.created_at)
        .limit(_DELETED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return delete(idempotency_keys).where(idempotency_keys.c.key.in_(oldest))
