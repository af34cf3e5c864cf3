"""The public interface of a task: everything that a module named in OUTBOX_TASKS may import from the consumer.

docs/reference/tasks.md documents these names. All others in this package are private.
"""

from consumer.model.mail import Mail
from consumer.model.outcomes import Discarded
from consumer.model.webhook import Webhook
from consumer.task.context import Context
from consumer.task.definition import Task
from consumer.task.results import Done, RetryAfter, Unavailable, Undeliverable

__all__ = [
    "Context",
    "Discarded",
    "Done",
    "Mail",
    "RetryAfter",
    "Task",
    "Unavailable",
    "Undeliverable",
    "Webhook",
]
