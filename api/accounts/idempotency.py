"""Run a request with an Idempotency-Key once, however often it is sent.

Follows draft-ietf-httpapi-idempotency-key-header. Guarantee: the transaction that causes an outcome also stores it. A
crash before its commit leaves neither, and the next attempt starts over; after the commit the next attempt gets the
same outcome. A key is valid for 24 hours. Each request with a key deletes some of the oldest expired ones.

A key belongs to the network that it came from, so another client may choose the same one. The signup form has a key of
its own, combined with what was typed: sent twice it runs once, and a corrected form is a new request.
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
"""A string of structured fields (RFC 9651) without escapes. The quotation marks are optional."""

MALFORMED: Final = f"{HEADER} must be a quoted string of 1 to 255 printable ASCII characters. Send a UUID."
IN_FLIGHT: Final = f"A request with this {HEADER} is still in progress. Try again in a moment."
USED: Final = f"This {HEADER} was already used with another body. Use a new key for a new request."
"""Texts for clients."""

FORM_FIELD: Final = "idempotency_key"
"""The form field with the key."""

_KEPT: Final = timedelta(hours=KEPT_HOURS)
_DELETED_AT_ONCE: Final = 20
_SALT: Final = b"outbox-signup.idempotency\n"
_NAME_SALT: Final = b"outbox-signup.idempotency-name\n"
_FORM_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_FORM_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The identity of a request among its client's, and of its body.

    Attributes:
        names: HMACs of the key and its owner, one per secret key, so that the stored name reveals no network.
        lock: the advisory lock of the request in progress.
        body_hmacs: HMACs of the body, one per secret key, so that nobody can guess a password from what is stored.
        is_of_form: wait for another request of the same name instead of refusing, and do not store a refusal.

    """

    names: tuple[str, ...] = field(repr=False)
    lock: int
    body_hmacs: tuple[bytes, ...] = field(repr=False)
    is_of_form: bool = False


def read_key(request: Request, body: Mapping[str, Any], secret_keys: Sequence[str]) -> RequestKey | None:
    """Return the key in the header; None without one. Raises ProblemError if it is malformed."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not re.fullmatch(KEY_PATTERN, given):
        raise ProblemError(400, MALFORMED)
    # Clients that look alike would share their keys, such as those behind a proxy that is not trusted.
    client = client_of(request)
    network = client.network if client.ignored is None else None
    owner = ["username", body["username"]] if network is None else ["network", network]
    return _request_key([*owner, given.strip('"')], _hmacs(body, secret_keys), secret_keys)


def read_form_key(request: Request, body: Mapping[str, str], secret_keys: Sequence[str]) -> RequestKey | None:
    """Return the form's own key; None where there is none that could be ours.

    The key is combined with what was typed, so that a corrected form is a new request. If a form is sent twice at once,
    the second one waits for the first.
    """
    given = request.form.get(FORM_FIELD, "")
    if not _FORM_KEY.fullmatch(given):
        return None
    hmacs = _hmacs(body, secret_keys)
    # By the last key, which all processes have while a new one is being introduced.
    return replace(_request_key(["form", given, hmacs[-1].hex()], hmacs, secret_keys), is_of_form=True)


def new_form_key() -> str:
    """Return a key for a new form."""
    return secrets.token_urlsafe(_FORM_KEY_BYTES)


def _hmacs(body: Mapping[str, Any], secret_keys: Sequence[str]) -> tuple[bytes, ...]:
    # Order and spaces do not matter.
    return _digests(_SALT, body, secret_keys)


def _request_key(name: Sequence[str], body_hmacs: tuple[bytes, ...], secret_keys: Sequence[str]) -> RequestKey:
    names = tuple(digest.hex() for digest in _digests(_NAME_SALT, name, secret_keys))
    # Without a secret, so that processes with other secret keys use the same lock. It is not stored.
    lock = hashlib.sha256(_NAME_SALT + json.dumps(name).encode("ascii")).digest()
    return RequestKey(names, int.from_bytes(lock[:8], signed=True), body_hmacs)


def _digests(salt: bytes, content: object, secret_keys: Sequence[str]) -> tuple[bytes, ...]:
    text = salt + json.dumps(content, sort_keys=True).encode("ascii")
    return tuple(hmac.digest(key.encode(), text, hashlib.sha256) for key in secret_keys)


def find_outcome(connection: Connection, key: RequestKey) -> dict[str, Any] | None:
    """Lock the key for this transaction and return its earlier outcome; None the first time.

    The lock is an advisory lock, which ends with the transaction. There are two statements because the second one has
    to see what was committed before the lock was acquired.

    Raises:
        ProblemError: the key was used with another body, or another request holds it and this one does not wait.

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
    """Store the outcome of the request, in its own transaction."""
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
    """Return the statement that stores an outcome, replacing an expired one of the same key."""
    statement = postgresql_insert(idempotency_keys).values(
        {name: bindparam(name) for name in ("key", "body_hmac", "outcome")}
    )
    columns = ("body_hmac", "outcome", "created_at")
    return statement.on_conflict_do_update(
        index_elements=["key"], set_={name: statement.excluded[name] for name in columns}
    )


@cache
def delete_expired_statement() -> Delete:
    """Return the statement that deletes some of the expired keys."""
    oldest = (
        select(idempotency_keys.c.key)
        .where(idempotency_keys.c.created_at <= func.now() - _KEPT)
        .order_by(idempotency_keys.c.created_at)
        .limit(_DELETED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return delete(idempotency_keys).where(idempotency_keys.c.key.in_(oldest))
