"""Verify an email address with a link that was mailed to it.

A link proves access to the mailbox. If one account has the address, the link was made for it and verifies it. If
several do, the person has to show which account is theirs, so that nobody verifies an account that someone else
prepared: with its signup token, or with its username and password. Any link to the address then works.
"""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from api.accounts.passwords.hashing import is_password
from api.accounts.signup_tokens.signing import is_token_of, username_in
from api.accounts.sql_expressions import as_name
from api.accounts.verification_statements import (
    count_statement,
    find_statement,
    lock_statement,
    mark_used_statement,
    uncount_statement,
    use_statement,
)
from api.database.engine import DatabaseUnavailableError, connected
from shared.links import is_authentic
from shared.outbox.columns import LARGEST_ID

_ATTEMPTS: Final = 3
# As in the mails: no sign, no leading zero, only ASCII digits.
_RECORD_ID: Final = re.compile(r"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Link:
    """The two parameters of a link, as the client sent them."""

    email_id: str
    secret_code: str = field(repr=False)

    @property
    def record_id(self) -> int | None:
        """The id of the verification record; None for what cannot be one."""
        if not _RECORD_ID.fullmatch(self.email_id) or (number := int(self.email_id)) > LARGEST_ID:
            return None
        return number


@dataclass(frozen=True, slots=True)
class Login:
    """A username and password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows which account is the client's. A login counts before a token.

    Attributes:
        token: a signup token.
        login: a username and password.
        shown: the username on the page whose button was pressed. Only that account may be verified.

    """

    token: str | None = field(default=None, repr=False)
    login: Login | None = None
    shown: str | None = None

    @property
    def username(self) -> str | None:
        """The username that the client claims, in a form that PostgreSQL can be asked for; None without one."""
        name = self.login.username if self.login else username_in(self.token)
        return None if name is None else as_name(name)


class LinkState(enum.Enum):
    """The state of a link."""

    OPEN = "open"
    """It would verify its address."""
    VERIFIED = "verified"
    """It was used, or its account is verified. Stays so after the link's expiry."""
    EXPIRED = "expired"
    """Expired, or ended by too many wrong passwords."""
    TAKEN = "taken"
    """Another account was verified with its address."""
    PROOF_REQUIRED = "proof required"
    """Other accounts have its address too, and nothing shows which one is the client's."""
    NOT_VALID = "not valid"
    """Unknown, altered, or no account has its address any more. Clients do not learn which."""


@dataclass(frozen=True, slots=True)
class LinkResult:
    """The result of checking or using a link.

    Attributes:
        state: the link's state, after its use if it was used.
        address: where the link was mailed to, for clients with an authentic link.
        username: the account that it would verify, or was made for.
        message_id: the welcome message, if this use verified the address.
        is_refused: a username and password were given, and no account of the address has them.

    """

    state: LinkState
    address: str | None = None
    username: str | None = None
    message_id: int | None = None
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class _Account:
    """The account of the address that the client has shown to be theirs."""

    username: str
    created_at: datetime


def check_link(engine: Engine, secret_keys: Sequence[str], link: Link, token: str | None = None) -> LinkResult:
    """Return the state of a link for the holder of this token. Changes nothing. Raises DatabaseUnavailableError."""
    proof = Proof(token)
    with connected(engine) as connection:
        row = _find(connection, secret_keys, link, proof)
    return _result(row, _account_of_token(secret_keys, row, proof))


def verify_email(engine: Engine, secret_keys: Sequence[str], link: Link, proof: Proof) -> LinkResult:
    """Use a link: verify its address and append a welcome message, once however often it is used.

    If two accounts verify one address at once, one succeeds and the other gets TAKEN. Raises DatabaseUnavailableError.
    """
    chosen: _Account | None = None
    for _ in range(_ATTEMPTS):
        with connected(engine) as connection:
            row = _find(connection, secret_keys, link, proof)
        # Once an account was shown to be the client's, no other one is verified, whatever happened to it since.
        chosen = chosen or _account_of_token(secret_keys, row, proof)
        found = _result(row, chosen)
        if proof.login is not None and chosen is None and _password_matters(row, found):
            chosen = _check_password(engine, link, row, proof.login)
            if chosen is None and found.state is not LinkState.TAKEN:
                return LinkResult(LinkState.PROOF_REQUIRED, found.address, proof.username, is_refused=True)
            found = _result(row, chosen)
        is_gone = chosen is not None and row is not None and row.chosen_username != chosen.username
        is_another = proof.login is None and proof.shown not in {None, found.username}
        if found.state is LinkState.OPEN and (is_gone or is_another):
            return LinkResult(LinkState.PROOF_REQUIRED, found.address, proof.username or proof.shown)
        if found.state is LinkState.VERIFIED and not row.is_used:
            with connected(engine) as connection:
                connection.execute(mark_used_statement(), {"record_id": link.record_id, "owner": row.owner})
        if found.state is not LinkState.OPEN:
            return found
        message_id = _use(engine, link, row.email, chosen)
        if message_id is not None:
            return LinkResult(LinkState.VERIFIED, found.address, found.username, message_id)
        # Another client or link was faster, or an address has just changed: read it again.
    raise DatabaseUnavailableError(f"a link was open and could not be used, {_ATTEMPTS} times")


def _find(connection: Connection, secret_keys: Sequence[str], link: Link, proof: Proof) -> Any:  # noqa: ANN401 - a row
    """Return the record; None unless the signature is right, so that other clients learn nothing about it."""
    if link.record_id is None:
        return None
    values = {"record_id": link.record_id, "chosen": proof.username}
    row = connection.execute(find_statement(), values).one_or_none()
    if row is None or not is_authentic(secret_keys, link.record_id, row.email, link.secret_code):
        return None
    return row


def _account_of_token(secret_keys: Sequence[str], row: Any, proof: Proof) -> _Account | None:  # noqa: ANN401 - a row
    """Return the account of the token if it has the link's address. A login overrides the token."""
    if row is None or row.chosen_username is None or proof.login is not None:
        return None
    if not is_token_of(secret_keys, proof.token, row.chosen_username, row.chosen_created_at):
        return None
    return _Account(row.chosen_username, row.chosen_created_at)


def _result(row: Any, chosen: _Account | None) -> LinkResult:  # noqa: ANN401 - a row
    if row is None:
        return LinkResult(LinkState.NOT_VALID)
    state = _state(row, None if chosen is None else chosen.username)
    return LinkResult(state, row.email, row.username if chosen is None else chosen.username)


def _state(row: Any, chosen: str | None) -> LinkState:  # noqa: ANN401, PLR0911 - a row; one line a state
    if row.owner is not None:
        if row.is_used or row.owner == chosen:
            return LinkState.VERIFIED
        if row.owner != row.username:
            return LinkState.TAKEN
        return LinkState.EXPIRED if row.is_over else LinkState.VERIFIED
    if not (row.is_waiting or row.has_others):
        return LinkState.NOT_VALID
    if row.is_over:
        return LinkState.EXPIRED
    if chosen is not None or not row.has_others:
        return LinkState.OPEN
    return LinkState.PROOF_REQUIRED


def _password_matters(row: Any, found: LinkResult) -> bool:  # noqa: ANN401 - a row
    """Return whether a password can change the link's state."""
    if found.state is LinkState.TAKEN:
        return bool(row.owner == row.chosen_username)
    return found.state in {LinkState.OPEN, LinkState.PROOF_REQUIRED}


def _check_password(engine: Engine, link: Link, row: Any, login: Login) -> _Account | None:  # noqa: ANN401 - a row
    """Return the account if the password is its own. Each try is counted and committed before the comparison."""
    with connected(engine) as connection:
        if connection.execute(count_statement(), {"record_id": link.record_id}).one_or_none() is None:
            return None
    if not is_password(row.chosen_hash, login.password) or row.chosen_created_at is None:
        return None
    with connected(engine) as connection:
        connection.execute(uncount_statement(), {"record_id": link.record_id})
    return _Account(row.chosen_username, row.chosen_created_at)


def _use(engine: Engine, link: Link, email: str, chosen: _Account | None) -> int | None:
    """Use the link and return the welcome message's id; None if things have changed since it was read."""
    values = {
        "record_id": link.record_id,
        "address": email,
        "chosen": None if chosen is None else chosen.username,
        "chosen_at": None if chosen is None else chosen.created_at,
    }
    try:
        with connected(engine, in_transaction=True) as connection:
            connection.execute(lock_statement(), {"address": email})
            message_id: int | None = connection.execute(use_statement(), values).scalar_one_or_none()
    except IntegrityError as exc:
        if not isinstance(exc.orig, UniqueViolation):
            raise
        # Another service verified the address without our lock.
        return None
    return message_id
