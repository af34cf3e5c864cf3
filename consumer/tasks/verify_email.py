"""The task `task:send_verify_email`: the mail with the link that verifies an address."""

from collections.abc import Mapping
from typing import Final

from consumer.task import Context, Discarded, Mail, Task, Undeliverable
from shared.links import sign, verification_link
from shared.outbox.messages import SendVerifyEmail
from shared.settings.consumer import ConsumerSettings

NO_SUCH_USER: Final = Undeliverable("the user in the payload does not exist or was deleted")

_NOT_NEEDED: Final = {
    "corrected": "the address was corrected later, and a newer mail replaces this one",
    "verified": "an account with this address is already verified",
}


def prepare(
    context: Context, messages: Mapping[int, SendVerifyEmail]
) -> Mapping[int, Mail | Discarded | Undeliverable]:
    """Create or renew each message's verification record, and return the mails with their links.

    Each message has one record, and so one link, however many attempts it takes. The link's life is counted from the
    latest attempt. The link changes only if the user's address changed since the last attempt.

    A mail is discarded when the address was corrected after it was requested (the correction appended a newer one), and
    when any account with its address is verified.
    """
    rows = context.connection.execute(
        """
        WITH reader AS MATERIALIZED (
            SELECT asked.message_id, users.username, users.email,
                   CASE WHEN asked.message_id < users.first_mail_id THEN 'corrected'
                        -- With LIMIT, since EXISTS may be planned as a scan of all verified accounts.
                        ELSE (SELECT 'verified'
                                FROM users AS owner
                               WHERE lower(owner.email) = lower(users.email) AND owner.is_email_verified
                               LIMIT 1) END AS not_needed
              FROM unnest(%(message_ids)s::bigint[], %(usernames)s::text[]) AS asked (message_id, username)
              JOIN users USING (username)
        ), record AS (
            INSERT INTO verify_emails AS v (username, email, message_id, expires_at)
            SELECT username, email, message_id, clock_timestamp() + make_interval(secs => %(life)s)
              FROM reader
             WHERE not_needed IS NULL
                ON CONFLICT (message_id) DO UPDATE
               SET email = excluded.email, expires_at = excluded.expires_at,
                   used_at = CASE WHEN v.email = excluded.email THEN v.used_at END
            RETURNING v.message_id, v.id
        )
        SELECT message_id, not_needed, record.id, reader.email, reader.username
          FROM reader
          LEFT JOIN record USING (message_id)
        """,
        {
            "message_ids": list(messages),
            "usernames": [message.username for message in messages.values()],
            "life": context.settings.verify_email_minutes * 60,
        },
    ).fetchall()
    made = {
        message_id: Discarded(_NOT_NEEDED[not_needed]) if not_needed else _mail(context.settings, *record)
        for message_id, not_needed, *record in rows
    }
    return {message_id: made.get(message_id) or NO_SUCH_USER for message_id in messages}


def _mail(settings: ConsumerSettings, record_id: int, email: str, username: str) -> Mail:
    """Return the mail. It does not show the full name, a free text: a stranger may have entered the address."""
    code = sign(settings.secret_keys, record_id, email)
    return Mail(
        recipient=email,
        recipient_name="",
        subject="Verify your email address",
        template="verify_email",
        values={"link": verification_link(settings.base_url, record_id, code), "username": username},
    )


TASK: Final = Task(SendVerifyEmail, prepare=prepare)
