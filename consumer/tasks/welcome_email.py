"""The task `task:send_welcome_email`: the mail that welcomes a user after the verification."""

from collections.abc import Mapping

from consumer.task import Mail, NoSuchUserError, Payload, Preparation, Prepared, Task, UserPayload
from shared.outbox.messages import SendWelcomeEmail


def prepare(preparation: Preparation, payloads: Mapping[int, Payload]) -> Prepared:
    """Return the welcome mails."""
    usernames = {message_id: payload["username"] for message_id, payload in payloads.items()}
    rows = preparation.connection.execute(
        "SELECT username, email, full_name FROM users WHERE username = ANY(%s)", [list(usernames.values())]
    ).fetchall()
    mails = {username: _mail(username, email, full_name) for username, email, full_name in rows}
    return {message_id: mails.get(username) or NoSuchUserError() for message_id, username in usernames.items()}


def _mail(username: str, email: str, full_name: str) -> Mail:
    return Mail(
        recipient=email,
        recipient_name=full_name,
        subject="Welcome",
        template="welcome_email",
        values={"username": username},
    )


TASK = Task(name=SendWelcomeEmail.task, payload=UserPayload(), prepare=prepare)
