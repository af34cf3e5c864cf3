"""`task:send_verify_email`: mails the link that verifies an address."""

from typing import Any

from consumer.task import Mail, Preparation, Task, UndeliverableError, UserPayload
from shared.links import sign, verification_link
from shared.messages import SendVerifyEmail


def prepare(preparation: Preparation, payload: dict[str, Any]) -> Mail:
    """Make or renew the message's verification record and the mail with its link.

    There is one record for a message, whatever the number of attempts, and so one link. Its life is counted from the
    latest attempt. Only if the user's address has changed since the last attempt does the link change with it.
    """
    row = preparation.connection.execute(
        """
        WITH reader AS (
            SELECT username, email, full_name FROM users WHERE username = %(username)s
        ), record AS (
            INSERT INTO verify_emails AS v (username, email, message_id, expires_at)
            SELECT username, email, %(message_id)s, clock_timestamp() + make_interval(secs => %(life)s) FROM reader
                ON CONFLICT (message_id) DO UPDATE
               SET email = excluded.email, expires_at = excluded.expires_at,
                   used_at = CASE WHEN v.email = excluded.email THEN v.used_at END
            RETURNING v.id
        )
        SELECT record.id, reader.email, reader.full_name FROM record, reader
        """,
        {
            "username": payload["username"],
            "message_id": preparation.message_id,
            "life": preparation.settings.verify_email_minutes * 60,
        },
    ).fetchone()
    if row is None:
        raise UndeliverableError("the user that the payload names does not exist (any more)")
    record_id, email, full_name = row
    code = sign(preparation.settings.secret_keys, record_id, email)
    return Mail(
        recipient=email,
        recipient_name=full_name,
        subject="Verify your address",
        template="verify_email",
        values={"link": verification_link(preparation.settings.base_url, record_id, code)},
    )


TASK = Task(name=SendVerifyEmail.task, payload=UserPayload, prepare=prepare)
