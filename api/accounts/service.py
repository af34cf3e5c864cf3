"""The use cases of accounts, which the JSON routes and the pages share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Engine

from api.accounts.corrections import TAKEN_FIELD, CorrectionRequest, correct_address
from api.accounts.idempotency import RequestKey
from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.own_account import find_own_account
from api.accounts.resend import ResendRequest, send_again
from api.accounts.signup import MailRules, SignedUp, SignUpRequest, Taken, sign_up, sign_up_once
from api.accounts.signup_state import SignupState, read_state
from api.accounts.signup_tokens.holders import TokenRefusedError, find_holder
from api.accounts.signup_tokens.signing import sign_token
from api.database.engine import connected
from api.database.notifier import Notifier
from api.http.problems import FieldError, ProblemError, invalid_fields

_log = structlog.get_logger(__name__)
USERNAME_TAKEN: Final = "This username is taken. Choose another one."
"""A text for clients."""

_TAKEN: Final = {"username": USERNAME_TAKEN, "email": TAKEN_FIELD}


@dataclass(frozen=True, slots=True)
class AccountService:
    """Runs each use case, notifies the relay after its commit, and logs it."""

    engine: Engine
    notifier: Notifier
    secret_keys: Sequence[str] = field(repr=False)
    mail_limiter: MailLimiter
    mail_delay_seconds: float
    unverified_days: float

    def sign_up(self, request: SignUpRequest, client: str | None, key: RequestKey | None = None) -> SignedUp:
        """Create an account, or return the unverified account that the username and password already belong to.

        Args:
            request: what the person sent, validated.
            client: the client's network; None where it is not known.
            key: the request's idempotency key. With one, the signup runs once, however often it is sent.

        Raises:
            ProblemError: fields are taken, the password is weak, or the key cannot be used.
            DatabaseUnavailableError: PostgreSQL is unavailable.

        """
        if request.weakness is not None:
            # Only new accounts are refused: an older account may have such a password.
            if (own := self._resume(request)) is not None:
                return own
            raise invalid_fields([FieldError("password", request.weakness)])
        rules = MailRules(self.mail_limiter, client, self.mail_delay_seconds)
        is_new = True
        if key is None:
            outcome = sign_up(self.engine, request, rules)
        else:
            outcome, is_new = sign_up_once(self.engine, request, key, rules)
        if isinstance(outcome, Taken) and "username" in outcome.fields and (own := self._resume(request)) is not None:
            return own
        if isinstance(outcome, Taken):
            _log.info("signup.refused", taken=outcome.fields)
            errors = [FieldError(name, _TAKEN[name]) for name in outcome.fields]
            raise ProblemError(409, f"Already taken: {' and '.join(outcome.fields)}.", errors=errors)
        # Committed: from here on nothing may turn the response into an error.
        self.notifier.notify()
        _log.info("user.signed_up" if is_new else "signup.repeated", message_id=outcome.message_id)
        return outcome

    def _resume(self, request: SignUpRequest) -> SignedUp | None:
        """Return the unverified account of this username if the password is right."""
        own = find_own_account(self.engine, request.username, request.password)
        if own is None:
            return None
        _log.info("signup.resumed")
        return SignedUp(
            own.username, own.full_name, own.email, is_email_verified=False, created_at=own.created_at, message_id=None
        )

    def signup_token(self, user: SignedUp) -> str:
        """Return the token that proves who made this account."""
        return sign_token(self.secret_keys, user.username, user.created_at)

    def signup_state(self, token: str | None) -> SignupState:
        """Return the state of the token's account and its mail.

        Raises TokenRefusedError or DatabaseUnavailableError.
        """
        with connected(self.engine) as connection:
            holder = find_holder(connection, self.secret_keys, token, self.unverified_days)
            if holder is None:
                raise TokenRefusedError
            return read_state(connection, self.mail_limiter, holder)

    def find_signup_state(self, token: str | None) -> SignupState | None:
        """Return the same, or None where the token belongs to no account. Raises DatabaseUnavailableError."""
        try:
            return None if token is None else self.signup_state(token)
        except TokenRefusedError:
            return None

    def correct_address(self, request: CorrectionRequest) -> SignupState:
        """Change the address of the token's account, send a mail there, and return the new state.

        Raises:
            TokenRefusedError: the token belongs to no account.
            ProblemError: the address may not be changed.
            DatabaseUnavailableError: PostgreSQL is unavailable.

        """
        holder, message_id = correct_address(
            self.engine, self.secret_keys, self.mail_limiter, request, self.unverified_days
        )
        if message_id is not None:
            # Committed: from here on nothing may turn the response into an error.
            self.notifier.notify()
            _log.info("address.corrected", message_id=message_id)
        return self.signup_state(sign_token(self.secret_keys, holder.username, holder.created_at))

    def send_again(self, request: ResendRequest) -> None:
        """Send the link again if an unverified account has this address. Raises DatabaseUnavailableError."""
        message_id = send_again(self.engine, self.secret_keys, self.mail_limiter, request)
        # Whether there is such an account or not: the time must not show it.
        self.notifier.notify()
        _log.info("verification_mail.requested", message_id=message_id)
