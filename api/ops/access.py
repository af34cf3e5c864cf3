"""Who may use the console: whoever knows OPS_TOKEN, for the time of a session.

The token is sent once, in the body of the form that opens the session; it stands in no address and in no cookie. The
cookie holds a random number, signed with the token: a new token ends every session.
"""

import hmac
import secrets
from typing import Final

from flask import Request
from itsdangerous import BadSignature, Signer, TimestampSigner
from werkzeug.wrappers import Response

PATH: Final = "/ops"
SESSION_SECONDS: Final = 8 * 3600
_COOKIE: Final = "outbox_ops"


class Access:
    """Opens sessions, recognises them, and tells a form of ours from somebody else's."""

    def __init__(self, token: str) -> None:
        """Keep the token."""
        self._token = token
        self._sessions = TimestampSigner(token, salt="outbox-signup.ops.session", key_derivation="hmac")
        self._forms = Signer(token, salt="outbox-signup.ops.form", key_derivation="hmac")

    def is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode("utf-8", "replace"))

    def open_session(self, request: Request, response: Response) -> None:
        """Give the browser a session. No other site's page can use it, and no script can read it."""
        response.set_cookie(
            _COOKIE,
            self._sessions.sign(secrets.token_hex(16)).decode(),
            max_age=SESSION_SECONDS,
            path=PATH,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )

    def close_session(self, response: Response) -> None:
        """Take the session away."""
        response.delete_cookie(_COOKIE, path=PATH, httponly=True, samesite="Strict")

    def session(self, request: Request) -> str | None:
        """Give the number of the request's session; None when there is none, or it is over."""
        try:
            number = self._sessions.unsign(request.cookies.get(_COOKIE, ""), max_age=SESSION_SECONDS)
        except BadSignature:
            return None
        return bytes(number).decode()

    def form_key(self, session: str) -> str:
        """Give what each form of this session has to send back."""
        return self._forms.get_signature(session).decode()

    def is_own_form(self, request: Request, session: str) -> bool:
        """Tell whether the form was made by us for this session."""
        return self._forms.verify_signature(session, request.form.get("form_key", ""))
