"""The spans of a message in a worker's hands, for when traces are asked for."""

from math import isfinite

from shared.outbox.claims import Claim
from shared.tracing.spans import NO_SPAN, OpenSpan, tracing


def begin_span(claim: Claim) -> OpenSpan:
    """Begin the span of a claimed message, in the trace that its row names.

    The way through the relay is told from here too, by the row's own times: the relay reads no message, and pays
    nothing for the traces.
    """
    if not tracing().is_on:
        return NO_SPAN
    span = tracing().begin(f"process {claim.task}", "consumer", parent=_past_the_relay(claim))
    span.note("outbox.message_id", claim.id)
    return span


def _past_the_relay(claim: Claim) -> str | None:
    if claim.traceparent is None or claim.published_at is None or not isfinite(claim.due_at):
        return claim.traceparent
    published = tracing().past_span("publish", "producer", claim.traceparent, claim.due_at, claim.published_at)
    return published or claim.traceparent
