"""Who may use the console: whoever knows OPS_TOKEN, for the time of a session.

The token is sent once, in the body of the form that opens the session; it stands in no address and in no cookie. The
cookie holds a random secret; what it opens stands in PostgreSQL (api.ops.sessions).
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
    """Recognises the token and sessions, and tells a form of ours from somebody else's."""

    def __init__(self, token: str) -> None:
        """Keep the token."""
        self._token = token.encode("utf-8", "replace")
        self._forms = Signer(token, salt="outbox-signup.ops.form", key_derivation="hmac")

    def is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    @staticmethod
    def new_secret() -> str:
        """Return what the cookie of a new session holds."""
        return secrets.token_urlsafe(_SECRET_BYTES)

    def secret_hmac(self, secret: str) -> bytes:
        """Return what is kept of a session's secret."""
        return hmac.digest(self._token, _SALT + secret.encode("ascii"), hashlib.sha256)

    @staticmethod
    def secret_of(request: Request) -> str | None:
        """Return the secret in the request's cookie; None when there is none that could be ours."""
        given = request.cookies.get(_COOKIE, "")
        return given if _SECRET.fullmatch(given) else None

    @staticmethod
    def set_cookie(request: Request, response: Response, secret: str) -> None:
        """Give the browser a session's secret. No other site's page can use it, and no script can read it."""
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
        """Take the cookie away."""
        response.delete_cookie(_COOKIE, path=PATH, httponly=True, samesite="Strict")

    def form_key(self, session: Session) -> str:
        """Give what each form of this session has to send back."""
        return self._forms.get_signature(session.secret).decode()

    def is_own_form(self, request: Request, session: Session) -> bool:
        """Tell whether the form was made by us for this session."""
        return self._forms.verify_signature(session.secret, request.form.get("form_key", ""))
