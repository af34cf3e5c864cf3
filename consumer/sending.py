"""Sending: from a prepared mail to the mail server's answer."""

from time import monotonic

from consumer.held import Ended, Ready
from consumer.mails import compose
from consumer.outcomes import Accepted, NotBegun, NotMade, Outcome
from consumer.smtp import Envelope, Mailer
from consumer.task import UndeliverableError
from shared.settings import ConsumerSettings
from shared.tracing import tracing


def open_mailer(settings: ConsumerSettings, connections: int = 1) -> Mailer:
    """Return what a worker hands its mails in with; nothing is opened yet."""
    return Mailer(
        settings.smtp_server,
        step_seconds=settings.smtp_timeout_seconds,
        helo_name=settings.smtp_helo_name,
        connections=connections,
    )


class Sender:
    """Composes and sends one mail at a time, over connections that are shared with other senders."""

    def __init__(self, settings: ConsumerSettings, mailer: Mailer) -> None:
        """Keep what every mail needs."""
        self._mail_from = settings.mail_from
        self._mailer = mailer
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
        """Close the connections that nobody uses."""
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
        except MemoryError:
            return NotBegun("this worker lacks memory", is_its_own=True)
        except Exception as exc:  # noqa: BLE001 - a bug in a template is this message's failure, not the worker's
            return NotMade(f"{type(exc).__name__} while the mail was composed")
        return self._hand_in(envelope, ready)

    def _hand_in(self, envelope: Envelope, ready: Ready) -> Outcome:
        if monotonic() >= ready.held.lease.begin_until:
            # Trying all the same would look like a mail server that does not answer.
            return NotBegun("too little time was left for the mail")
        return self._mailer.send(envelope, ready.held.lease)
