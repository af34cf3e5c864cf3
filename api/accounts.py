"""What people do with their accounts, whether a program or a form asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

from api.doorbell import Doorbell
from api.idempotency import RequestKey
from api.problems import FieldError, ProblemError, invalid_fields
from api.resend import send_again
from api.signup import SignedUp, SignUp, Taken, sign_up, sign_up_once

_log = structlog.get_logger(__name__)
_TAKEN = {
    "username": "Taken: choose another username.",
    "email": "Taken: an account with this address exists; use that one or another address.",
}


@dataclass(frozen=True, slots=True)
class Accounts:
    """Signing up and asking for the mail again, each with its ring at the relay's door and its line in the log."""

    engine: Engine
    doorbell: Doorbell
    secret_keys: Sequence[str] = field(repr=False)
    mail_delay_seconds: float

    def create(self, wish: SignUp, key: RequestKey | None = None) -> SignedUp:
        """Sign somebody up; with a key only once, however often it is asked.

        Raises ProblemError naming every taken field, a weak password or what is wrong with the key, or
        DatabaseUnavailableError.
        """
        if wish.weakness is not None:
            # Of a new account alone: whoever has one with such a password, from before, is let in by it.
            raise invalid_fields([FieldError("password", wish.weakness)])
        delay = self.mail_delay_seconds
        is_new = True
        if key is None:
            outcome = sign_up(self.engine, wish, mail_delay_seconds=delay)
        else:
            outcome, is_new = sign_up_once(self.engine, wish, key, mail_delay_seconds=delay)
        if isinstance(outcome, Taken):
            _log.info("signup refused", taken=outcome.fields)
            errors = [FieldError(name, _TAKEN[name]) for name in outcome.fields]
            raise ProblemError(409, f"Taken already: {' and '.join(outcome.fields)}.", errors=errors)
        # Committed: from here on nothing may turn the answer into an error.
        self.doorbell.ring()
        _log.info("signed up" if is_new else "signup repeated", message_id=outcome.message_id)
        return outcome

    def send_again(self, email: str) -> None:
        """Mail the link again if an account with this address waits for it. Raises DatabaseUnavailableError."""
        message_id = send_again(self.engine, self.secret_keys, email)
        # Rung whether there is such an account or not.
        self.doorbell.ring()
        _log.info("verification mail asked for", message_id=message_id)
