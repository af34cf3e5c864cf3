"""OUTBOX_TRACING: whether a process records traces, and the start of the recording."""

import importlib
import os
from types import ModuleType
from typing import Final

from shared.errors import SettingsError
from shared.tracing.spans import tracing, use_tracing

_VARIABLE: Final = "OUTBOX_TRACING"
_OFF: Final = "off"
_OTLP: Final = "otlp"


def configure_tracing(service: str) -> None:
    """Start recording traces if OUTBOX_TRACING asks for it. Only the entry points of processes call this.

    Args:
        service: the name of this process in traces; OTEL_SERVICE_NAME overrides it.

    Raises:
        SettingsError: the variable is malformed, or the packages are not installed.

    """
    if not check_tracing() or tracing().is_on:
        return
    use_tracing(_otel().otlp_tracing(service))


def check_tracing() -> bool:
    """Return whether OUTBOX_TRACING asks for traces. Raises SettingsError as configure_tracing does."""
    chosen = os.environ.get(_VARIABLE, _OFF)
    if chosen not in {_OFF, _OTLP}:
        raise SettingsError({_VARIABLE: [f"has to be {_OFF} or {_OTLP}."]})
    if chosen == _OTLP:
        _otel()
    return chosen == _OTLP


def _otel() -> ModuleType:
    """Import the module that needs OpenTelemetry. Raises SettingsError when a package is missing."""
    try:
        return importlib.import_module("shared.tracing.otel")
    except ImportError as exc:
        problem = "needs more packages: pip install -r requirements-tracing.lock"
        raise SettingsError({_VARIABLE: [problem]}) from exc
