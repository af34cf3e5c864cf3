"""The signup token, which proves who created an account before its address is verified.

It is `<username in base64url>.<signature>`, a signature over the account's name and creation time. It is derived and
never stored: a repeated response contains the same token, and a later account with the same name has another one.
Browsers keep it as a cookie; programs send it as `Authorization: Bearer`.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from flask import Request, Response
from itsdangerous import Signer

from api.http.same_origin import refuse_foreign_forms

COOKIE: Final = "signup"
_SALT: Final = "outbox-signup.signup-token"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEME: Final = "bearer"
_LONGEST: Final = 4096


def sign_token(secret_keys: Sequence[str], username: str, created_at: datetime) -> str:
    """Return the token of an account, signed with the first key."""
    return _token(secret_keys[0], username, created_at)


def username_in(token: str | None) -> str | None:
    """Return the username that a token claims; None for what is not a token."""
    name, dot, _ = (token or "").partition(".")
    if not dot or not name.isascii() or len(name) > _LONGEST:
        return None
    try:
        username = urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
    except (Base64Error, UnicodeDecodeError):
        return None
    return None if "\0" in username else username


def is_token_of(secret_keys: Sequence[str], token: str | None, username: str, created_at: datetime | None) -> bool:
    """Return whether the token is ours, signed with any of the keys, for this username and creation time."""
    if token is None or created_at is None:
        return False
    given = token.encode("utf-8", "replace")
    tokens = [_token(key, username, created_at).encode("ascii") for key in secret_keys]
    return any([hmac.compare_digest(each, given) for each in tokens])  # noqa: C419 - no early end: constant time


def read_token(request: Request) -> str | None:
    """Return the request's token: the header's, else the cookie's.

    Raises ProblemError for another site's form that would use the cookie.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == _SCHEME:
        return token.strip()
    if (cookie := request.cookies.get(COOKIE)) is not None:
        refuse_foreign_forms(request)
    return cookie


def keep_token(response: Response, request: Request, token: str, days: float) -> None:
    """Set the token's cookie for at least a day. Lax, because a mail's link has to send it along."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=timedelta(days=max(1.0, days)),
        httponly=True,
        secure=request.is_secure,
        samesite="Lax",
    )


def _token(secret_key: str, username: str, created_at: datetime) -> str:
    microseconds = (created_at - _EPOCH) // timedelta(microseconds=1)
    signer = Signer(secret_key, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    signature = signer.get_signature(f"{microseconds}:{username}").decode("ascii")
    return f"{urlsafe_b64encode(username.encode()).rstrip(b'=').decode('ascii')}.{signature}"
