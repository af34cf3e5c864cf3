"""Send a mail to the mail server within one deadline, and return whether it was accepted."""

from time import monotonic, sleep
from typing import Final, Protocol

from consumer.dialing import OutOfResourcesError
from consumer.mail.connection import Extend, SmtpConnection
from consumer.mail.connection_pool import ConnectionPool, NoPlaceError
from consumer.mail.session import ServerUnavailableError, Sessions
from consumer.mail.transaction import Envelope, NotTaken, Transaction
from consumer.model.lease import Lease
from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed, Outcome, Released, RenderFailed
from shared.doubling_pause import DoublingPause
from shared.settings.smtp_server import SmtpServer

__all__ = ["Envelope", "MailTransport", "Mailer"]

_IDLE_SECONDS: Final = 2.0
"""How long an idle connection is kept. The mail server counts it, and another worker may need one."""

_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.5


class MailTransport(Protocol):
    """Hands mails over to somebody: a Mailer, or what stands for one in a test."""

    def send(self, envelope: Envelope, lease: Lease, extend: Extend | None = None) -> Outcome:
        """Hand the mail over, and return the outcome."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Mailer:
    """Sends mails over connections that it keeps open. Several threads may use it at once."""

    def __init__(
        self,
        server: SmtpServer,
        *,
        step_seconds: float,
        helo_name: str | None = None,
        connections: int = 1,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        """Open nothing yet.

        Args:
            server: the mail server.
            step_seconds: the longest wait for one answer, except the greeting and the answer to a mail's content.
            helo_name: the name in EHLO; None for the local address of the connection.
            connections: how many may be open at once.
            idle_seconds: how long an unused connection is kept.

        """
        self._sessions = Sessions(server, step_seconds, helo_name)
        self._connections = connections
        self._pool = ConnectionPool(self._sessions.open, connections, idle_seconds=idle_seconds)

    def send(self, envelope: Envelope, lease: Lease, extend: Extend | None = None) -> Outcome:
        """Send the mail before the lease's deadline, and return the outcome.

        Args:
            envelope: the mail.
            lease: how long the message is ours.
            extend: called when the time for the reply to the content is over; returns the new end of the wait
                (monotonic), or None to give up.

        """
        mail = Transaction(self._sessions, envelope, lease, extend)
        try:
            return self._send(mail)
        except NoPlaceError:
            return Released("the mail server accepts no further connection now")
        except ServerUnavailableError as exc:
            return DestinationUnavailable(str(exc), after_mail_from=exc.after_mail_from, is_busy=exc.is_busy)
        except Exception as exc:  # noqa: BLE001 - RQ's timeout or a defect ends an attempt, never the worker
            return _outcome_of_our_error(exc, dot_sent=mail.dot_sent)

    @property
    def connection_limit(self) -> int:
        """Return how many connections the server seems to accept at once."""
        return self._pool.limit

    def close_idle(self) -> None:
        """Close connections that were idle for a while, so that the server can accept others."""
        self._pool.close_idle()

    def close(self) -> None:
        """Send QUIT on all connections without waiting for the replies."""
        self._pool.close_idle(all_of_them=True)

    def _send(self, mail: Transaction) -> Outcome:
        """Send the mail over one connection, and try another if the first may be the reason of a refusal.

        A connection that has carried mail may have reached the limit of its session, so a new one is tried. A new one
        may be one too many, so one of the others is tried, if there are any.
        """
        connection = self._pool.take(mail.lease)
        result = self._run(mail, connection)
        if not isinstance(result, NotTaken):
            return result
        refused_at = monotonic()
        if connection.mails > 1 and monotonic() < mail.lease.send_until:
            connection = self._pool.renew(connection, mail.lease)
            result = self._run(mail, connection)
        # Of each refusal by a fresh connection: whether there may have been too many connections.
        refused_afresh: set[bool] = set()
        # Until the other senders find out too that there are too many, the server may refuse any of them.
        tries = 0
        pause = DoublingPause(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while isinstance(result, NotTaken) and self._may_be_one_too_many(result, mail, tries):
            if connection.mails == 1:
                refused_afresh.add(result.limits_connections)
            # The server takes a moment to notice that a connection was closed. Until then it counts the connection.
            connection.close()
            sleep(pause.next())
            self._pool.discard(connection, lower=result.limits_connections)
            connection = self._pool.take(mail.lease)
            result = self._run(mail, connection)
            tries += 1
        if not isinstance(result, NotTaken):
            return result
        self._pool.discard(connection)
        # The server may not accept a fresh one, and each of the others may have reached the limit of its session.
        is_about_the_mail = connection.mails == 1 or result.limits_connections in refused_afresh
        if result.blames_server:
            is_about_the_mail &= self._pool.accepted_since(refused_at)
        if result.failure is not None and is_about_the_mail:
            return result.failure
        raise result.unavailable

    def _run(self, mail: Transaction, connection: SmtpConnection) -> Outcome | NotTaken:
        """Send the mail over this connection. Keep it for others, unless it may be the reason of a refusal."""
        began_at = monotonic()
        try:
            result = mail.run(connection)
        except BaseException:
            self._pool.discard(connection)
            raise
        if not isinstance(result, NotTaken):
            self._pool.give_back(connection, began_at if isinstance(result, Accepted) else None)
        return result

    def _may_be_one_too_many(self, result: NotTaken, mail: Transaction, tries: int) -> bool:
        if not self._pool.has_others() or monotonic() >= mail.lease.send_until:
            return False
        if result.limits_connections:
            return tries < self._connections
        return tries == 0 and result.blames_server and result.unavailable.is_busy


def _outcome_of_our_error(exc: Exception, *, dot_sent: bool) -> Outcome:
    """Return the outcome of a mail that an error of this process interrupted."""
    name = type(exc).__name__
    if dot_sent:
        return Failed(f"{name} after the mail was sent", maybe_accepted=True, is_unanswered=True)
    if isinstance(exc, (MemoryError, OutOfResourcesError)):
        return Released(f"this worker lacks memory, files or threads ({name})", is_delayed=True)
    return RenderFailed(f"{name} while the mail was sent")
