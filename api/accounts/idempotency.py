"""A request that names itself with an Idempotency-Key is carried out once, however often it is sent.

Follows draft-ietf-httpapi-idempotency-key-header. Guarantee: the outcome is kept by the transaction that brought it
about. A crash before its commit leaves neither, and the next attempt begins anew; after it the next attempt is told the
same. A key counts for 24 hours. Rows past that are deleted by the next requests with a key, some of the oldest each.

A key belongs to the network that it came from: a stranger may choose the same one. The form carries a key of its own,
which belongs to what was typed: sent twice it is carried out once, and what was corrected is a new request.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any, Final

from flask import Request
from sqlalchemy import BigInteger, Connection, Delete, Select, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from api.clients.forwarding import client_of
from api.http.problems import ProblemError
from api.tables import idempotency_keys

HEADER: Final = "Idempotency-Key"
KEPT_HOURS: Final = 24
KEY_PATTERN: Final = r'"[ !#-\[\]-~]{1,255}"|[A-Za-z0-9._~:/+=-]{1,255}'
"""A string as structured fields have it (RFC 9651), without escapes; its quotation marks may be left out."""

MALFORMED: Final = f"{HEADER} must be a quoted string of 1 to 255 printable ASCII characters. Send a UUID."
IN_FLIGHT: Final = f"A request with this {HEADER} is still in progress. Try again in a moment."
USED: Final = f"This {HEADER} was already used with another body. Use a new key for a new request."
"""What clients are told."""

FORM_FIELD: Final = "idempotency_key"
"""The field of a form that names it."""

_KEPT: Final = timedelta(hours=KEPT_HOURS)
_DELETED_AT_ONCE: Final = 20
_SALT: Final = b"outbox-signup.idempotency\n"
_NAME_SALT: Final = b"outbox-signup.idempotency-name\n"
_FORM_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_FORM_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The name of a request among those of its client, and what tells its body from others.

    Attributes:
        names: HMACs of what the client chose and of whose it is, one by each secret key: what is kept names no network.
        lock: who holds it is working on the request.
        body_hmacs: HMACs of the body, one by each secret key: a password cannot be guessed from what is kept.
        is_of_form: another request of the same name is waited for, instead of refused, and a refusal is not kept.

    """

    names: tuple[str, ...] = field(repr=False)
    lock: int
    body_hmacs: tuple[bytes, ...] = field(repr=False)
    is_of_form: bool = False


def read_key(request: Request, body: Mapping[str, Any], secret_keys: Sequence[str]) -> RequestKey | None:
    """Read the header, if there is one. Raises ProblemError when it is malformed."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not re.fullmatch(KEY_PATTERN, given):
        raise ProblemError(400, MALFORMED)
    # Clients that cannot be told apart would share their keys: behind a proxy whose header nothing believes, for one.
    client = client_of(request)
    network = client.network if client.ignored is None else None
    owner = ["username", body["username"]] if network is None else ["network", network]
    return _request_key([*owner, given.strip('"')], _hmacs(body, secret_keys), secret_keys)


def read_form_key(request: Request, body: Mapping[str, str], secret_keys: Sequence[str]) -> RequestKey | None:
    """Read the form's own key; None where it has none that could be ours.

    It names the form together with what was typed, so that nobody is refused for correcting it. Sent twice at once, the
    second waits for the first.
    """
    given = request.form.get(FORM_FIELD, "")
    if not _FORM_KEY.fullmatch(given):
        return None
    hmacs = _hmacs(body, secret_keys)
    # By the last key, which the processes have in common while a new one is put in front.
    return replace(_request_key(["form", given, hmacs[-1].hex()], hmacs, secret_keys), is_of_form=True)


def new_form_key() -> str:
    """Return a key for a form that is shown now."""
    return secrets.token_urlsafe(_FORM_KEY_BYTES)


def _hmacs(body: Mapping[str, Any], secret_keys: Sequence[str]) -> tuple[bytes, ...]:
    # The same values in another order or with other blanks are the same body.
    return _digests(_SALT, body, secret_keys)


def _request_key(name: Sequence[str], body_hmacs: tuple[bytes, ...], secret_keys: Sequence[str]) -> RequestKey:
    names = tuple(digest.hex() for digest in _digests(_NAME_SALT, name, secret_keys))
    # Without a secret, so that processes with other keys respect it. It is nowhere kept.
    lock = hashlib.sha256(_NAME_SALT + json.dumps(name).encode("ascii")).digest()
    return RequestKey(names, int.from_bytes(lock[:8], signed=True), body_hmacs)


def _digests(salt: bytes, content: object, secret_keys: Sequence[str]) -> tuple[bytes, ...]:
    text = salt + json.dumps(content, sort_keys=True).encode("ascii")
    return tuple(hmac.digest(key.encode(), text, hashlib.sha256) for key in secret_keys)


def find_outcome(connection: Connection, key: RequestKey) -> dict[str, Any] | None:
    """Take the key for this transaction and give what came of it earlier, or None the first time.

    Raises ProblemError when another request had it with another body, or holds it and is not waited for. The key is an
    advisory lock, which ends with the transaction. Two statements, since the second has to see what was committed
    before the first got the lock.
    """
    is_ours = connection.execute(_wait() if key.is_of_form else _try(), {"lock": key.lock}).scalar_one()
    if is_ours is False:
        raise ProblemError(409, IN_FLIGHT, headers={"Retry-After": "1"})
    row = connection.execute(_kept(), {"keys": key.names}).one_or_none()
    if row is None:
        return None
    if not any(hmac.compare_digest(row.body_hmac, ours) for ours in key.body_hmacs):
        raise ProblemError(422, USED)
    outcome: dict[str, Any] = row.outcome
    return outcome


def keep_outcome(connection: Connection, key: RequestKey, outcome: Mapping[str, Any]) -> None:
    """Keep what came of the request, in its own transaction."""
    kept = {"key": key.names[0], "body_hmac": key.body_hmacs[0], "outcome": dict(outcome)}
    connection.execute(keep_statement(), kept)
    connection.execute(delete_expired_statement())


@cache
def _try() -> Select[Any]:
    return select(func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger)))


@cache
def _wait() -> Select[Any]:
    return select(func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger)))


@cache
def _kept() -> Select[Any]:
    return select(idempotency_keys.c.body_hmac, idempotency_keys.c.outcome).where(
        idempotency_keys.c.key.in_(bindparam("keys", expanding=True)),
        idempotency_keys.c.created_at > func.now() - _KEPT,
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
def delete_expired_statement() -> Delete:
    """Build the statement that deletes some of the keys that count no longer."""
    oldest = (
        select(idempotency_keys.c.key)
        .where(idempotency_keys.c.created_at <= func.now() - _KEPT)
        .order_by(idempotency_keys.c.created_at)
        .limit(_DELETED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return delete(idempotency_keys).where(idempotency_keys.c.key.in_(oldest))
