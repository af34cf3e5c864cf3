"""Traces: from a request, through the message that it left in the outbox, to the mail.

Off, which is the default, everything here does nothing and OpenTelemetry is not even imported. On (OUTBOX_TRACING=otlp,
and the packages of the extra `tracing`), spans go where OpenTelemetry's own variables say, such as
OTEL_EXPORTER_OTLP_ENDPOINT. A message carries its trace in the column `traceparent` (W3C Trace Context).
"""

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Literal

from shared.errors import SettingsError

Kind = Literal["server", "producer", "consumer", "client"]

_VARIABLE: Final = "OUTBOX_TRACING"
_OFF, _OTLP = "off", "otlp"


class Span:
    """A span that nobody records."""

    def note(self, name: str, value: str | int) -> None:
        """Add a fact; never an address or a secret."""

    def failed(self) -> None:
        """Mark what the span covers as failed. No text of an error is kept: it may hold an address."""


class OpenSpan(Span):
    """A span that ends elsewhere than it began, be it in another thread.

    Attributes:
        traceparent: names it, for what is done inside it.

    """

    traceparent: str | None = None

    def end(self) -> None:
        """Say that what it covers is over."""


NO_SPAN: Final = OpenSpan()


class Tracing:
    """Traces nothing."""

    is_on = False

    def traceparent(self) -> str | None:
        """Name the current span, for whoever goes on with the work; None outside a span."""
        return None

    def span(
        self,
        name: str,  # noqa: ARG002
        kind: Kind,  # noqa: ARG002
        *,
        parent: str | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Cover what is done inside this context, as a part of `parent` or of the current span."""
        return nullcontext(Span())

    def begin(self, name: str, kind: Kind, *, parent: str | None) -> OpenSpan:  # noqa: ARG002
        """Begin a span, as a part of `parent` or as a trace of its own."""
        return NO_SPAN

    def past_span(self, name: str, kind: Kind, parent: str, began: float, ended: float) -> str | None:
        """Tell of what was done elsewhere between two times (seconds since the epoch); give its traceparent."""

    def flush(self) -> None:
        """Send what was recorded, before the process ends."""


@dataclass(slots=True)
class _Active:
    tracing: Tracing


_active: Final = _Active(Tracing())


def tracing() -> Tracing:
    """Give what this process traces with."""
    return _active.tracing


def current_traceparent() -> str | None:
    """Name the current span for a message; None when nothing is traced."""
    return _active.tracing.traceparent()


def use_tracing(chosen: Tracing) -> None:
    """Trace with this from now on."""
    _active.tracing = chosen


def configure_tracing(service: str) -> None:
    """Read OUTBOX_TRACING and begin to trace, if it says so. Called by the processes' entry points alone.

    Args:
        service: what the spans of this process are shown under; OTEL_SERVICE_NAME goes before it.

    Raises:
        SettingsError: the variable is malformed, or the packages are not installed.

    """
    if not check_tracing() or _active.tracing.is_on:
        return
    use_tracing(_otel().otlp_tracing(service))


def check_tracing() -> bool:
    """Tell whether OUTBOX_TRACING asks for traces. Raises SettingsError as configure_tracing does."""
    chosen = os.environ.get(_VARIABLE, _OFF)
    if chosen not in {_OFF, _OTLP}:
        raise SettingsError({_VARIABLE: [f"has to be {_OFF} or {_OTLP}."]})
    if chosen == _OTLP:
        _otel()
    return chosen == _OTLP


def _otel() -> ModuleType:
    """Import what needs the packages. Raises SettingsError when one of them is missing."""
    try:
        return importlib.import_module("shared.tracing.otel")
    except ImportError as exc:
        problem = "needs more packages: pip install -r requirements-tracing.lock"
        raise SettingsError({_VARIABLE: [problem]}) from exc
