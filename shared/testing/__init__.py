"""For tests of code that uses the outbox: what was appended, and tasks that run without servers.

The functions that run tasks are the consumer's. They are imported at their first use, so that a program that only
appends messages needs none of the consumer's libraries. docs/how-to/test-your-tasks.md shows them in use.
"""

from typing import TYPE_CHECKING, Any

from shared.testing.appended import AppendedMessage, appended, assert_appended

if TYPE_CHECKING:
    from consumer.testing import (
        CapturedMail,
        CapturedWebhook,
        DueRun,
        MessageRun,
        ProcessedMessage,
        run_due,
        run_message,
    )

_OF_THE_CONSUMER = (
    "CapturedMail",
    "CapturedWebhook",
    "DueRun",
    "MessageRun",
    "ProcessedMessage",
    "run_due",
    "run_message",
)

__all__ = [
    "AppendedMessage",
    "CapturedMail",
    "CapturedWebhook",
    "DueRun",
    "MessageRun",
    "ProcessedMessage",
    "appended",
    "assert_appended",
    "run_due",
    "run_message",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """Import what runs tasks at its first use."""
    if name in _OF_THE_CONSUMER:
        from consumer import testing  # noqa: PLC0415

        return getattr(testing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
