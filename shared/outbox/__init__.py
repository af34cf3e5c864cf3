"""The outbox: every statement that moves a message between states, with its columns and their limits.

Code that appends messages needs only the names that this module exports.
"""

from typing import TYPE_CHECKING, Any

from shared.outbox.messages import CRITICAL, DEFAULT, Message

if TYPE_CHECKING:
    from shared.outbox.appending import append, append_for_each

__all__ = ["CRITICAL", "DEFAULT", "Message", "append", "append_for_each"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """Import the INSERT at its first use: it needs SQLAlchemy, which relay and worker do not use."""
    if name in {"append", "append_for_each"}:
        from shared.outbox import appending  # noqa: PLC0415

        return getattr(appending, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
