"""What people do with their accounts, whether a program or a form asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

from api.accounts.corrections import Correction, correct_address
from api.accounts.idempotency import RequestKey
from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.own_account import find_own_account
from api.accounts.resend import Asked, send_again
from api.accounts.signup import MailRules, SignedUp, SignUp, Taken, sign_up, sign_up_once
from api.accounts.signup_state import SignupState, read_state
from api.accounts.signup_tokens import sign_token
from api.accounts.token_holders import TokenRefusedError, find_holder
from api.database.engine import connected
from api.database.notifier import Doorbell
from api.http.problems import FieldError, ProblemError, invalid_fields

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
    mail_limiter: MailLimiter
    mail_delay_seconds: float
    unverified_days: float

    def create(self, wish: SignUp, client: str | None, key: RequestKey | None = None) -> SignedUp:
        """Sign somebody up, from a client network; with a key only once, however often it is asked.

        Whoever signs up again with the username and the password of an account that is not verified yet gets that
        account, with its own name and address.

        Raises ProblemError naming every taken field, a weak password or what is wrong with the key, or
        DatabaseUnavailableError.
        """
        if wish.weakness is not None:
            # Of a new account alone: whoever has one with such a password, from before, is let in by it.
            if (own := self._own(wish)) is not None:
                return own
            raise invalid_fields([FieldError("password", wish.weakness)])
        rules = MailRules(self.mail_limiter, client, self.mail_delay_seconds)
        is_new = True
        if key is None:
            outcome = sign_up(self.engine, wish, rules)
        else:
            outcome, is_new = sign_up_once(self.engine, wish, key, rules)
        if isinstance(outcome, Taken) and "username" in outcome.fields and (own := self._own(wish)) is not None:
            return own
        if isinstance(outcome, Taken):
            _log.info("signup.refused", taken=outcome.fields)
            errors = [FieldError(name, _TAKEN[name]) for name in outcome.fields]
            raise ProblemError(409, f"Taken already: {' and '.join(outcome.fields)}.", errors=errors)
        # Committed: from here on nothing may turn the answer into an error.
        self.doorbell.ring()
        _log.info("user.signed_up" if is_new else "signup.repeated", message_id=outcome.message_id)
        return outcome

    def _own(self, wish: SignUp) -> SignedUp | None:
        own = find_own_account(self.engine, wish.username, wish.password)
        if own is None:
            return None
        _log.info("signup.resumed")
        return SignedUp(
            own.username, own.full_name, own.email, is_email_verified=False, created_at=own.created_at, message_id=None
        )

    def token_of(self, user: SignedUp) -> str:
        """Return the token that shows that somebody made this account."""
        return sign_token(self.secret_keys, user.username, user.created_at)

    def state(self, token: str | None) -> SignupState:
        """Return what is known of the token's account. Raises TokenRefusedError or DatabaseUnavailableError."""
        with connected(self.engine) as connection:
            holder = find_holder(connection, self.secret_keys, token, self.unverified_days)
            if holder is None:
                raise TokenRefusedError
            return read_state(connection, self.mail_limiter, holder)

    def known_state(self, token: str | None) -> SignupState | None:
        """Return the same, None where the token is of no account. Raises DatabaseUnavailableError."""
        try:
            return None if token is None else self.state(token)
        except TokenRefusedError:
            return None

    def correct(self, wish: Correction) -> SignupState:
        """Correct the address of the token's account and mail to it.

        Raises TokenRefusedError, ProblemError where it may not be corrected, or DatabaseUnavailableError.
        """
        holder, message_id = correct_address(
            self.engine, self.secret_keys, self.mail_limiter, wish, self.unverified_days
        )
        if message_id is not None:
            # Committed: from here on nothing may turn the answer into an error.
            self.doorbell.ring()
            _log.info("address.corrected", message_id=message_id)
        return self.state(sign_token(self.secret_keys, holder.username, holder.created_at))

    def send_again(self, asked: Asked) -> None:
        """Mail the link again if an account with this address waits for it. Raises DatabaseUnavailableError."""
        message_id = send_again(self.engine, self.secret_keys, self.mail_limiter, asked)
        # Rung whether there is such an account or not.
        self.doorbell.ring()
        _log.info("verification_mail.requested", message_id=message_id)
