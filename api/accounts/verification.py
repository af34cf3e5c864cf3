"""Verifying an address with a link that was mailed to it.

A link proves the mailbox. Where one account names the address, it is the account that the link was made for, and the
link verifies it. Where others do, somebody has to say which account is meant, so that nobody is led to verify one that
somebody else prepared: with its signup token, or with its username and password. Any link of the address then serves.
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

from api.accounts.conditions import as_name
from api.accounts.passwords.hashing import is_password
from api.accounts.signup_tokens import is_token_of, username_in
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
# As the mails write it: no sign, no leading zero, no digits of other scripts.
_RECORD_ID: Final = re.compile(r"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Link:
    """The two parameters of a link, as they came."""

    email_id: str
    secret_code: str = field(repr=False)

    @property
    def record_id(self) -> int | None:
        """The number of the verification record, None for what cannot be one."""
        if not _RECORD_ID.fullmatch(self.email_id) or (number := int(self.email_id)) > LARGEST_ID:
            return None
        return number


@dataclass(frozen=True, slots=True)
class Login:
    """The username and the password of an account."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows whose account is meant; a login counts before a token.

    Attributes:
        token: a signup token.
        login: username and password.
        shown: the account that the page named whose button was pressed: that one is verified, or none.

    """

    token: str | None = field(default=None, repr=False)
    login: Login | None = None
    shown: str | None = None

    @property
    def username(self) -> str | None:
        """The name of the account that is meant, as far as anybody says; no name that PostgreSQL cannot have."""
        name = self.login.username if self.login else username_in(self.token)
        return None if name is None else as_name(name)


class LinkState(enum.Enum):
    """What a link is worth at the moment."""

    OPEN = "open"
    """It would verify its address."""
    VERIFIED = "verified"
    """It was used, or its account is verified; it stays that way past the link's life."""
    EXPIRED = "expired"
    """Past its life, or ended by wrong passwords."""
    TAKEN = "taken"
    """Another account was verified with its address."""
    PROOF_REQUIRED = "proof required"
    """Not only the account that it was made for names its address, and nothing shows which one is meant."""
    NOT_VALID = "not valid"
    """Unknown, altered, or no account names its address by now: nobody is told which."""


@dataclass(frozen=True, slots=True)
class LinkResult:
    """What a link is worth, and what came of using it.

    Attributes:
        state: what it is worth, after its use if it was used.
        address: where the link was mailed to, for whoever has an authentic one.
        username: the account that it would verify, or was made for.
        message_id: the welcome message, if this use verified the address.
        is_refused: a username and a password were given, and they are not those of an account of the address.

    """

    state: LinkState
    address: str | None = None
    username: str | None = None
    message_id: int | None = None
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class _Account:
    """An account of the address that was shown to be meant."""

    username: str
    created_at: datetime


def check_link(engine: Engine, secret_keys: Sequence[str], link: Link, token: str | None = None) -> LinkResult:
    """Say what a link is worth for whoever holds this token, and change nothing. Raises DatabaseUnavailableError."""
    proof = Proof(token)
    with connected(engine) as connection:
        row = _find(connection, secret_keys, link, proof)
    return _judge(row, _of_token(secret_keys, row, proof))


def verify_email(engine: Engine, secret_keys: Sequence[str], link: Link, proof: Proof) -> LinkResult:
    """Use a link: its address is verified, and a welcome message appended, once however often it is used.

    Of two that verify one address at once, one wins and the other is told TAKEN. Raises DatabaseUnavailableError.
    """
    meant: _Account | None = None
    for _ in range(_ATTEMPTS):
        with connected(engine) as connection:
            row = _find(connection, secret_keys, link, proof)
        # Once somebody was shown to be meant, no other account is verified, whatever has become of that one.
        meant = meant or _of_token(secret_keys, row, proof)
        found = _judge(row, meant)
        if proof.login is not None and meant is None and _needs_comparison(row, found):
            meant = _compare(engine, link, row, proof.login)
            if meant is None and found.state is not LinkState.TAKEN:
                return LinkResult(LinkState.PROOF_REQUIRED, found.address, proof.username, is_refused=True)
            found = _judge(row, meant)
        is_gone = meant is not None and row is not None and row.chosen_username != meant.username
        is_another = proof.login is None and proof.shown not in {None, found.username}
        if found.state is LinkState.OPEN and (is_gone or is_another):
            return LinkResult(LinkState.PROOF_REQUIRED, found.address, proof.username or proof.shown)
        if found.state is LinkState.VERIFIED and not row.is_used:
            with connected(engine) as connection:
                connection.execute(mark_used_statement(), {"record_id": link.record_id, "owner": row.owner})
        if found.state is not LinkState.OPEN:
            return found
        message_id = _use(engine, link, row.email, meant)
        if message_id is not None:
            return LinkResult(LinkState.VERIFIED, found.address, found.username, message_id)
        # Somebody else was faster, or another link did it before, or an address changed just now: look again.
    raise DatabaseUnavailableError(f"a link was open and could not be used, {_ATTEMPTS} times")


def _find(connection: Connection, secret_keys: Sequence[str], link: Link, proof: Proof) -> Any:  # noqa: ANN401 - a row
    """Read the record. The signature is checked first: who has none learns nothing about the record."""
    if link.record_id is None:
        return None
    values = {"record_id": link.record_id, "meant": proof.username}
    row = connection.execute(find_statement(), values).one_or_none()
    if row is None or not is_authentic(secret_keys, link.record_id, row.email, link.secret_code):
        return None
    return row


def _of_token(secret_keys: Sequence[str], row: Any, proof: Proof) -> _Account | None:  # noqa: ANN401 - a row
    """Return the account of the token, if it names the link's address; a login is for whoever means another one."""
    if row is None or row.chosen_username is None or proof.login is not None:
        return None
    if not is_token_of(secret_keys, proof.token, row.chosen_username, row.chosen_created_at):
        return None
    return _Account(row.chosen_username, row.chosen_created_at)


def _judge(row: Any, meant: _Account | None) -> LinkResult:  # noqa: ANN401 - a row
    if row is None:
        return LinkResult(LinkState.NOT_VALID)
    state = _state(row, None if meant is None else meant.username)
    return LinkResult(state, row.email, row.username if meant is None else meant.username)


def _state(row: Any, meant: str | None) -> LinkState:  # noqa: ANN401, PLR0911 - a row; one line a state
    if row.owner is not None:
        if row.is_used or row.owner == meant:
            return LinkState.VERIFIED
        if row.owner != row.username:
            return LinkState.TAKEN
        return LinkState.EXPIRED if row.is_over else LinkState.VERIFIED
    if not (row.is_waiting or row.are_others):
        return LinkState.NOT_VALID
    if row.is_over:
        return LinkState.EXPIRED
    if meant is not None or not row.are_others:
        return LinkState.OPEN
    return LinkState.PROOF_REQUIRED


def _needs_comparison(row: Any, found: LinkResult) -> bool:  # noqa: ANN401 - a row
    """Return whether a password may change what the link is worth."""
    if found.state is LinkState.TAKEN:
        return bool(row.owner == row.chosen_username)
    return found.state in {LinkState.OPEN, LinkState.PROOF_REQUIRED}


def _compare(engine: Engine, link: Link, row: Any, login: Login) -> _Account | None:  # noqa: ANN401 - a row
    """Return the account whose password it is. Each try is counted, and committed, before it is compared."""
    with connected(engine) as connection:
        if connection.execute(count_statement(), {"record_id": link.record_id}).one_or_none() is None:
            return None
    if not is_password(row.chosen_hash, login.password) or row.chosen_created_at is None:
        return None
    with connected(engine) as connection:
        connection.execute(uncount_statement(), {"record_id": link.record_id})
    return _Account(row.chosen_username, row.chosen_created_at)


def _use(engine: Engine, link: Link, email: str, meant: _Account | None) -> int | None:
    """Use the link and return the welcome message's id, None where things are not as they were looked up."""
    values = {
        "record_id": link.record_id,
        "address": email,
        "meant": None if meant is None else meant.username,
        "meant_at": None if meant is None else meant.created_at,
    }
    try:
        with connected(engine, in_transaction=True) as connection:
            connection.execute(lock_statement(), {"address": email})
            message_id: int | None = connection.execute(use_statement(), values).scalar_one_or_none()
    except IntegrityError as exc:
        if not isinstance(exc.orig, UniqueViolation):
            raise
        # Somebody verified the address without our lock, as another service may.
        return None
    return message_id
