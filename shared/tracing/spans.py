"""Spans of a trace: from a request, through its message in the outbox, to the mail.

By default they do nothing, and OpenTelemetry is not imported. With OUTBOX_TRACING=otlp and the packages of the extra
`tracing` they are sent where OpenTelemetry's own variables say, such as OTEL_EXPORTER_OTLP_ENDPOINT. A message carries
its trace in the column `traceparent` (W3C Trace Context).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["server", "producer", "consumer", "client"]


class Span:
    """A span that is not recorded."""

    def note(self, name: str, value: str | int) -> None:
        """Set an attribute; never an address or a secret."""

    def failed(self) -> None:
        """Mark the span as failed. No text of an error is recorded, because it may contain an address."""


class OpenSpan(Span):
    """A span that may end in another function or thread than it began.

    Attributes:
        traceparent: the parent of spans inside it.

    """

    traceparent: str | None = None

    def end(self) -> None:
        """End the span."""


NO_SPAN: Final = OpenSpan()


class Tracing:
    """Tracing that is off."""

    is_on = False

    def traceparent(self) -> str | None:
        """Return the current span as the parent of later work; None outside a span."""
        return None

    def span(
        self,
        name: str,  # noqa: ARG002
        kind: Kind,  # noqa: ARG002
        *,
        parent: str | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Return a context that is a span inside `parent`, or inside the current span."""
        return nullcontext(Span())

    def begin(self, name: str, kind: Kind, *, parent: str | None) -> OpenSpan:  # noqa: ARG002
        """Start a span inside `parent`, or as a trace of its own."""
        return NO_SPAN

    def past_span(self, name: str, kind: Kind, parent: str, began: float, ended: float) -> str | None:
        """Record a span between two times (seconds since the epoch), and return its traceparent."""

    def flush(self) -> None:
        """Send what was recorded, before the process ends."""


@dataclass(slots=True)
class _Active:
    tracing: Tracing


_active: Final = _Active(Tracing())


def tracing() -> Tracing:
    """Return the tracing of this process."""
    return _active.tracing


def current_traceparent() -> str | None:
    """Return the current span as the parent of a message's; None when tracing is off."""
    return _active.tracing.traceparent()


def use_tracing(chosen: Tracing) -> None:
    """Use this tracing from now on."""
    _active.tracing = chosen
