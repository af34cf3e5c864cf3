"""The mail task that celery, dramatiq and procrastinate run: the same claim, mail and acknowledgement as ours.

Written as their users would: a connection to PostgreSQL and one to the mail server kept by each thread, the email
package, smtplib, plain SQL with a token and a lease.
"""

import os
import smtplib
import threading
import uuid
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from jinja2 import Environment, PackageLoader, Template, select_autoescape

from shared.links import sign, verification_link

_CLAIM: Final = """
    UPDATE outbox
       SET status = 'running', attempt = attempt + 1, claim_token = %(token)s, claimed_at = clock_timestamp(),
           lease_until = clock_timestamp() + interval '60 seconds'
     WHERE id = %(id)s AND status = 'published'
    RETURNING payload
"""
_RECORD: Final = """
    WITH reader AS (SELECT username, email FROM users WHERE username = %(username)s),
    record AS (
        INSERT INTO verify_emails (username, email, message_id, expires_at)
        SELECT username, email, %(id)s, clock_timestamp() + interval '1 day' FROM reader
            ON CONFLICT (message_id) DO UPDATE SET expires_at = excluded.expires_at
        RETURNING id
    )
    SELECT record.id, reader.email, reader.username FROM record, reader
"""
_ACK: Final = """
    WITH finished AS (
        DELETE FROM outbox WHERE id = %(id)s AND status = 'running' AND claim_token = %(token)s RETURNING *
    )
    INSERT INTO outbox_finished (
        id, task, payload, queue, status, due_at, generation, attempt, max_retries, broker_epoch, last_error, failures,
        traceparent, created_at, published_at, claimed_at, finished_at)
    SELECT id, task, payload, queue, 'done', due_at, generation, attempt, max_retries, broker_epoch, last_error,
           failures, traceparent, created_at, published_at, claimed_at, clock_timestamp()
      FROM finished
"""


@dataclass(slots=True)
class _Connections:
    """The connections that one thread keeps open."""

    database: psycopg.Connection[Any]
    mail_server: smtplib.SMTP


_of_thread = threading.local()


def send_mail(message_id: int) -> None:
    """Claim the message, send its mail, acknowledge it."""
    connections = _connections()
    values: dict[str, Any] = {"id": message_id, "token": uuid.uuid4()}
    with connections.database.transaction():
        claimed = connections.database.execute(_CLAIM, values).fetchone()
        if claimed is None:
            return
        values["username"] = claimed[0]["username"]
        record = connections.database.execute(_RECORD, values).fetchone()
    if record is None:
        return
    mail = _compose(*record)
    connections.mail_server.send_message(mail)
    connections.database.execute(_ACK, values)


def _connections() -> _Connections:
    kept: _Connections | None = getattr(_of_thread, "connections", None)
    if kept is None:
        server = urlsplit(os.environ["SMTP_URL"])
        kept = _of_thread.connections = _Connections(
            psycopg.connect(os.environ["DATABASE_URL"], autocommit=True),
            smtplib.SMTP(server.hostname or "", server.port or 25, local_hostname="example.org"),
        )
    return kept


def _compose(record_id: int, address: str, username: str) -> EmailMessage:
    code = sign([os.environ["SECRET_KEY"]], record_id, address)
    values = {"username": username, "link": verification_link(os.environ["BASE_URL"], record_id, code)}
    mail = EmailMessage(policy=SMTP)
    mail["From"] = os.environ["MAIL_FROM"]
    mail["To"] = address
    mail["Subject"] = "Verify your email address"
    mail["Date"] = format_datetime(localtime())
    mail["Message-ID"] = make_msgid(domain="example.org")
    text, html = load_templates()
    mail.set_content(text.render(values))
    mail.add_alternative(html.render(values), subtype="html")
    return mail


@cache
def load_templates() -> tuple[Template, Template]:
    """Return the mail's plain and its HTML template, compiled once."""
    environment = Environment(loader=PackageLoader("consumer"), autoescape=select_autoescape(["html"]))
    return environment.get_template("verify_email.txt"), environment.get_template("verify_email.html")
