"""The task `task:send_welcome_email`: the mail that welcomes a user after the verification."""

from collections.abc import Mapping
from typing import Final

from consumer.task import Context, Mail, Task, Undeliverable
from consumer.tasks.verify_email import NO_SUCH_USER
from shared.outbox.messages import SendWelcomeEmail


def prepare(context: Context, messages: Mapping[int, SendWelcomeEmail]) -> Mapping[int, Mail | Undeliverable]:
    """Return the welcome mails."""
    usernames = [message.username for message in messages.values()]
    rows = context.connection.execute(
        "SELECT username, email, full_name FROM users WHERE username = ANY(%s)", [usernames]
    ).fetchall()
    mails = {username: _mail(username, email, full_name) for username, email, full_name in rows}
    return {message_id: mails.get(message.username) or NO_SUCH_USER for message_id, message in messages.items()}


def _mail(username: str, email: str, full_name: str) -> Mail:
    return Mail(
        recipient=email,
        recipient_name=full_name,
        subject="Welcome",
        template="welcome_email",
        values={"username": username},
    )


TASK: Final = Task(SendWelcomeEmail, prepare=prepare)
