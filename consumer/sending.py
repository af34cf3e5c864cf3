"""Sending: from a prepared mail to the mail server's answer."""

from time import monotonic

from consumer.held import Ended, Ready
from consumer.mails import compose
from consumer.outcomes import Accepted, Failed, NotBegun, NotMade, Outcome
from consumer.smtp import Envelope, Mailer
from consumer.task import UndeliverableError
from shared.settings import ConsumerSettings
from shared.tracing import tracing


class Sender:
    """Composes and sends one mail at a time, over a connection that it keeps."""

    def __init__(self, settings: ConsumerSettings) -> None:
        """Keep what every mail needs; the connection is opened at its first use."""
        self._mail_from = settings.mail_from
        self._mailer = Mailer(
            settings.smtp_server, step_seconds=settings.smtp_timeout_seconds, helo_name=settings.mail_from.domain
        )
        self.busy_since: float | None = None
        """Since when (monotonic) a mail is in hand."""

    def send(self, ready: Ready) -> Ended:
        """Send the mail, at most once, and tell what came of it."""
        self.busy_since = monotonic()
        try:
            return Ended(ready.held, self._send_traced(ready), ready.breaker)
        finally:
            self.busy_since = None

    def close(self) -> None:
        """Close the connection."""
        self._mailer.close()

    def _send_traced(self, ready: Ready) -> Outcome:
        with tracing().span("send mail", "client", parent=ready.held.span.traceparent) as span:
            outcome = self._send(ready)
            span.note("outbox.outcome", type(outcome).__name__)
            if not isinstance(outcome, Accepted):
                span.failed()
            return outcome

    def _send(self, ready: Ready) -> Outcome:
        try:
            envelope = compose(ready.mail, ready.held.claim.uid, self._mail_from)
        except UndeliverableError as exc:
            return NotMade(exc.reason, is_permanent=True)
        except Exception as exc:  # noqa: BLE001 - a bug in a template is this message's failure, not the worker's
            return NotMade(f"{type(exc).__name__} while the mail was composed")
        return self._hand_in(envelope, ready)

    def _hand_in(self, envelope: Envelope, ready: Ready) -> Outcome:
        if monotonic() >= ready.held.lease.begin_until:
            # Trying all the same would look like a mail server that does not answer.
            return NotBegun("too little time was left for the mail")
        try:
            return self._mailer.send(envelope, ready.held.lease)
        except Exception as exc:  # noqa: BLE001 - RQ's timeout or a bug: the attempt failed, the worker goes on
            self._mailer.drop()
            return Failed(f"{type(exc).__name__} while the mail was sent", maybe_accepted=True)
