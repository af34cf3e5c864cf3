"""`task:send_welcome_email`: greets a user whose address is verified."""

from typing import Any

from consumer.task import Mail, Preparation, Task, UndeliverableError, UserPayload
from shared.messages import SendWelcomeEmail


def prepare(preparation: Preparation, payload: dict[str, Any]) -> Mail:
    """Make the greeting."""
    row = preparation.connection.execute(
        "SELECT username, email, full_name FROM users WHERE username = %s", [payload["username"]]
    ).fetchone()
    if row is None:
        raise UndeliverableError("the user that the payload names does not exist (any more)")
    username, email, full_name = row
    return Mail(
        recipient=email,
        recipient_name=full_name,
        subject="Welcome",
        template="welcome_email",
        values={"username": username},
    )


TASK = Task(name=SendWelcomeEmail.task, payload=UserPayload, prepare=prepare)
