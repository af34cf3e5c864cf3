"""Authenticate operators: OPS_TOKEN opens a session.

The token is sent once, in the body of the login form, and never appears in a URL or a cookie. The cookie contains a
random secret; the session itself is a row in PostgreSQL (api.ops.sessions).
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

from flask import Request
from itsdangerous import Signer
from werkzeug.wrappers import Response

from api.ops.sessions import SESSION_SECONDS, Session

PATH: Final = "/ops"
_COOKIE: Final = "outbox_ops"
_SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_SALT: Final = b"outbox-signup.ops.session\n"


class Access:
    """Checks the token, the sessions' cookies, and the forms' keys."""

    def __init__(self, token: str) -> None:
        self._token = token.encode("utf-8", "replace")
        self._forms = Signer(token, salt="outbox-signup.ops.form", key_derivation="hmac")

    def is_token(self, given: str) -> bool:
        """Return whether this is the token. Compares in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    @staticmethod
    def new_secret() -> str:
        """Return a random secret for a new session's cookie."""
        return secrets.token_urlsafe(_SECRET_BYTES)

    def secret_hmac(self, secret: str) -> bytes:
        """Return the HMAC of a secret, which PostgreSQL stores instead of it."""
        return hmac.digest(self._token, _SALT + secret.encode("ascii"), hashlib.sha256)

    @staticmethod
    def secret_of(request: Request) -> str | None:
        """Return the secret in the request's cookie; None where there is none that could be ours."""
        given = request.cookies.get(_COOKIE, "")
        return given if _SECRET.fullmatch(given) else None

    @staticmethod
    def set_cookie(request: Request, response: Response, secret: str) -> None:
        """Set the session's cookie. Other sites cannot use it and scripts cannot read it."""
        response.set_cookie(
            _COOKIE,
            secret,
            max_age=SESSION_SECONDS,
            path=PATH,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )

    @staticmethod
    def delete_cookie(response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(_COOKIE, path=PATH, httponly=True, samesite="Strict")

    def form_key(self, session: Session) -> str:
        """Return the key that every form of this session has to send back."""
        return self._forms.get_signature(session.secret).decode()

    def is_own_form(self, request: Request, session: Session) -> bool:
        """Return whether we made the form for this session."""
        return self._forms.verify_signature(session.secret, request.form.get("form_key", ""))
