"""The tasks of this service, one module each. OUTBOX_TASKS names further modules like this one."""

from typing import Any, Final

from consumer.task import Task
from consumer.tasks import deliver_webhook, verify_email, welcome_email

TASKS: Final[list[Task[Any]]] = [verify_email.TASK, welcome_email.TASK, deliver_webhook.TASK]
