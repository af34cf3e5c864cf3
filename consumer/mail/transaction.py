"""One mail over one connection (RFC 5321, section 3.3), and what each answer means."""

import smtplib
from dataclasses import dataclass, field
from time import monotonic

from consumer.mail.connection import Extend, SmtpConnection
from consumer.mail.reply_codes import (
    Refusal,
    is_about_recipient,
    is_agreement,
    is_closing,
    is_refusal,
    limits_connections,
    policy_code,
    refusal,
)
from consumer.mail.session import ServerUnavailableError, Sessions
from consumer.model.lease import Lease
from consumer.model.outcomes import TAKES_NO_MORE, Accepted, Failed, LeaseOver, Outcome
from shared.outage_causes import connection_cause
from shared.smtp.replies import quoted


@dataclass(frozen=True, slots=True)
class Envelope:
    """The two addresses that the server sees, and the mail's bytes with CRLF line ends."""

    sender: str
    recipient: str
    content: bytes


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The mail was not accepted, and the connection or the server may be the reason.

    Attributes:
        unavailable: the outcome if another connection does no better.
        failure: the outcome instead if the mail turns out to be the reason; None if it cannot be.
        blames_server: the answer names a reason that has nothing to do with the mail. The mail is the reason all the
            same if another one is accepted meanwhile.
        limits_connections: too many connections to the server may be open.

    """

    unavailable: ServerUnavailableError
    failure: Failed | None = None
    blames_server: bool = True
    limits_connections: bool = False


@dataclass(slots=True)
class Transaction:
    """A mail that is being sent.

    Attributes:
        sessions: the facts about the server.
        envelope: the mail.
        lease: ends the wait for it.
        extend: extends the wait for the last answer.
        dot_sent: whether the last dot may have been sent. From then on the mail may have been accepted.

    """

    sessions: Sessions
    envelope: Envelope
    lease: Lease
    extend: Extend | None = None
    dot_sent: bool = field(default=False, init=False)

    def run(self, connection: SmtpConnection) -> Outcome | NotTaken:
        """Send the mail over this connection, and return the outcome.

        If anything fails before the last dot, the mail was not accepted. After it, silence or garbage means that the
        mail may have been accepted.
        """
        connection.until = self.lease.send_until
        try:
            refused = self._offer(connection)
            if refused is None:
                return self._hand_over(connection)
        except ServerUnavailableError as exc:
            connection.close()
            # At MAIL FROM the server knows nothing of the mail. Some servers refuse there if they have too many of us.
            return NotTaken(exc, limits_connections=not exc.after_mail_from)
        if not isinstance(refused, NotTaken):
            connection.forget_mail()
        return refused

    def _offer(self, connection: SmtpConnection) -> Outcome | NotTaken | None:
        """Send sender and recipient. Return the outcome of a refusal, or None if the server wants the content."""
        envelope = self.envelope
        with self.sessions.translated("the mail server went away at MAIL FROM"):
            code, text = connection.begin_mail(envelope.sender, envelope.recipient)
        if not is_agreement(code):
            what = "the mail server refuses our sender (MAIL_FROM)"
            error = self.sessions.refused(what, code, text, envelope.sender)
            # A limit of mails in a period is announced here. Trying again at once would make it worse.
            error.is_busy = False
            raise error
        # DATA follows at once, so a failure there is reported as one at RCPT TO.
        with self.sessions.translated("the mail server went away at RCPT TO", after_mail_from=True):
            reply = connection.request_content(envelope.recipient)
        if reply is None:
            return None
        code, text = reply
        if not is_refusal(code):
            raise self._unavailable("the mail server's answer is not valid", code, text)
        if is_closing(code):
            return self._busy(f"{TAKES_NO_MORE} and closes", code, text)
        return self._refused(code, text)

    def _hand_over(self, connection: SmtpConnection) -> Outcome | NotTaken:
        """Send the content, check the lease once more, and only then send the dot that makes the server accept it."""
        with self.sessions.translated("the mail server went away in the middle of the mail", after_mail_from=True):
            connection.send_content(self.envelope.content)
        if self.lease.is_over() or monotonic() >= self.lease.send_until:
            connection.close()
            return LeaseOver()
        self.dot_sent = True
        try:
            code, text = connection.end_content(self.extend)
        except (OSError, smtplib.SMTPException) as exc:
            connection.close()
            cause = connection_cause(exc, self.sessions.server.host, self.sessions.server.port)
            reason = f"no answer after the mail was sent: {cause}"
            return Failed(reason, maybe_accepted=True, is_unanswered=True)
        if is_agreement(code):
            return Accepted()
        if not is_refusal(code):
            connection.close()
            return Failed(f"unexpected answer {code} after the mail was sent", maybe_accepted=True)
        self.dot_sent = False
        if is_closing(code):
            connection.close()
        return self._refused(code, text)

    def _refused(self, code: int, text: bytes) -> Outcome | NotTaken:
        """Return the outcome of a refusal, by its meaning."""
        reason = f"refused: {quoted(code, text, self.envelope.recipient)}"
        match refusal(code, text):
            case Refusal.FOR_GOOD:
                return Failed(reason, is_permanent=True, is_about_recipient=is_about_recipient(code, text))
            case Refusal.OF_THIS_MAIL:
                return Failed(reason)
            case Refusal.BY_POLICY:
                return Failed(reason, policy_code=policy_code(code, text))
            case Refusal.OF_OUR_SENDER:
                return NotTaken(self._unavailable("the mail server refuses our sender (MAIL_FROM)", code, text))
            case Refusal.OF_A_BUSY_SERVER:
                return self._busy(TAKES_NO_MORE, code, text)
            case Refusal.WITHOUT_A_REASON:
                unavailable = self._unavailable(TAKES_NO_MORE, code, text)
                return NotTaken(unavailable, Failed(reason), blames_server=False)

    def _busy(self, what: str, code: int, text: bytes) -> NotTaken:
        failure = Failed(f"refused: {quoted(code, text, self.envelope.recipient)}")
        unavailable = self._unavailable(what, code, text)
        return NotTaken(unavailable, failure, limits_connections=limits_connections(code, text))

    def _unavailable(self, what: str, code: int, text: bytes) -> ServerUnavailableError:
        return self.sessions.refused(what, code, text, self.envelope.recipient, after_mail_from=True)
