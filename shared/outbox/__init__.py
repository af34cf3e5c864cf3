"""The outbox: the life of a message, from its INSERT to history.

Every statement that moves a message between states is in this package, with the columns and their limits. A use case
that asks for work needs the names that this module exports, and no more.
"""

from typing import TYPE_CHECKING, Any

from shared.outbox.messages import CRITICAL, DEFAULT, Message

if TYPE_CHECKING:
    from shared.outbox.appending import append, append_for_each

__all__ = ["CRITICAL", "DEFAULT", "Message", "append", "append_for_each"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """Import the INSERT when it is first asked for: it needs SQLAlchemy, which relay and worker do without."""
    if name in {"append", "append_for_each"}:
        from shared.outbox import appending  # noqa: PLC0415

        return getattr(appending, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
