"""Sends webhooks: from a prepared webhook to the endpoint's answer."""

from time import monotonic, time
from typing import Final

import psycopg
import structlog

from consumer.dialing import OutOfResourcesError
from consumer.model.message import AttemptResult, ClaimedMessage, PreparedMessage
from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed, Outcome, Released, RenderFailed
from consumer.model.webhook import Webhook, WebhookEndpoint
from consumer.stages.database import Database
from consumer.webhooks.answers import is_accepted, is_outage, reason_of, retry_after_seconds, wants_no_more
from consumer.webhooks.client import Answer, NoAnswerError, NoConnectionError, TooLateError, WebhookTransport
from shared.tracing.spans import tracing
from shared.version import VERSION
from shared.webhooks.deliveries import DISABLED_AFTER_DAYS, disable
from shared.webhooks.signing import signature
from shared.webhooks.urls import UnusableUrlError, WebhookUrl, parse_webhook_url

_log = structlog.get_logger(__name__)

LONGEST_SECONDS: Final = 15.0
"""The longest time for one webhook, from the look-up of the name to the answer."""

_LOCK_SECONDS: Final = 1.0

_TOO_LATE: Final = Released("too little of the lease was left to send the webhook")
_MALFORMED: Final = RenderFailed("a secret of the endpoint or the body of the event is malformed", is_permanent=True)


class WebhookSender:
    """Signs and sends one webhook at a time, each over a connection of its own."""

    def __init__(self, database_url: str, client: WebhookTransport) -> None:
        self._database_url = database_url
        self._client = client
        self.busy_since: float | None = None
        """When (monotonic) the webhook in hand was started; None without one."""

    def send(self, prepared: PreparedMessage, webhook: Webhook) -> AttemptResult:
        """Send the webhook at most once, and return the result."""
        self.busy_since = monotonic()
        try:
            with tracing().span("send webhook", "client", parent=prepared.message.span.traceparent) as span:
                outcome = self._send(prepared.message, webhook)
                span.note("outbox.outcome", type(outcome).__name__)
                if not isinstance(outcome, Accepted):
                    span.failed()
            return AttemptResult(prepared.message, outcome)
        finally:
            self.busy_since = None

    def _send(self, message: ClaimedMessage, webhook: Webhook) -> Outcome:
        try:
            url = parse_webhook_url(webhook.url)
            body = webhook.body.encode()
            headers = _headers(str(message.claim.uid), webhook.secrets, body)
        except UnusableUrlError as exc:
            return RenderFailed(str(exc), is_permanent=True)
        except ValueError:
            return _MALFORMED
        if monotonic() >= message.lease.begin_until:
            return _TOO_LATE
        return self._post(message, webhook, url, body, headers)

    def _post(
        self, message: ClaimedMessage, webhook: Webhook, url: WebhookUrl, body: bytes, headers: dict[str, str]
    ) -> Outcome:
        until = min(monotonic() + LONGEST_SECONDS, message.lease.send_until)
        try:
            answer = self._client.post(url, body, headers, begin_until=message.lease.begin_until, until=until)
        except NoConnectionError as exc:
            return self._unavailable(webhook.endpoint, str(exc))
        except NoAnswerError as exc:
            return Failed(str(exc), maybe_accepted=True)
        except TooLateError:
            return _TOO_LATE
        except (OutOfResourcesError, MemoryError):
            return Released("the worker lacks memory, files or threads", is_delayed=True)
        except Exception as exc:  # noqa: BLE001 - a bug fails its message, not the worker
            return Failed(f"{type(exc).__name__} while the webhook was sent", maybe_accepted=True)
        return self._outcome(answer, webhook.endpoint)

    def _outcome(self, answer: Answer, endpoint: WebhookEndpoint | None) -> Outcome:
        if is_accepted(answer):
            return Accepted()
        reason = reason_of(answer)
        if is_outage(answer):
            return self._unavailable(endpoint, reason, retry_after_seconds(answer))
        if wants_no_more(answer) and endpoint and self._disable(endpoint, reason, ends_events=True):
            return Released(reason, is_delayed=True)
        return Failed(reason)

    def _unavailable(self, endpoint: WebhookEndpoint | None, reason: str, retry_after: float = 0.0) -> Outcome:
        if endpoint is not None and endpoint.is_long_unavailable:
            self._disable(endpoint, f"unavailable for {DISABLED_AFTER_DAYS} days: {reason}", ends_events=False)
        return DestinationUnavailable(reason, retry_after_seconds=retry_after)

    def _disable(self, endpoint: WebhookEndpoint, reason: str, *, ends_events: bool) -> bool:
        """Disable the endpoint, and return whether it is. Without PostgreSQL, the next answer will."""
        database = Database(self._database_url)
        try:
            with database.transaction(lock_seconds=_LOCK_SECONDS) as connection:
                is_disabled = disable(
                    connection, endpoint.id, reason, enabled_at=endpoint.enabled_at, ends_events=ends_events
                )
        except psycopg.Error as exc:
            _log.warning("webhook.not_disabled", endpoint_id=endpoint.id, error=type(exc).__name__)
            return False
        finally:
            database.close()
        if is_disabled:
            fix = "python -m outbox_relay webhooks enable NAME, when its receiver is ready"
            _log.error("webhook.disabled", endpoint_id=endpoint.id, error=reason, fix=fix)
        return is_disabled


def _headers(uid: str, secrets: tuple[str, ...], body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks. The time is that of the attempt, so that a receiver can refuse old ones.

    Raises:
        ValueError: a secret is malformed.

    """
    timestamp = int(time())
    return {
        "Content-Type": "application/json",
        "User-Agent": f"outbox-signup/{VERSION}",
        "webhook-id": uid,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secrets, uid, timestamp, body),
    }
