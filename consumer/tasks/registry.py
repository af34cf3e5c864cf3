"""All tasks that this consumer can run. To add one, write a module in consumer/tasks/ and list it here."""

from typing import Final

from consumer.task import Task
from consumer.tasks import verify_email, welcome_email

TASKS: Final[dict[str, Task]] = {task.name: task for task in (verify_email.TASK, welcome_email.TASK)}
