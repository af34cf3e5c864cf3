"""The API whose signups know no limits of mails: what `bench.experiments.limits` compares with.

`gunicorn 'bench.processes.signup_without_limits:create_app()'` writes a user and its message in one statement and
nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final
from unittest import mock

from flask import Flask
from sqlalchemy import CTE, Connection, Engine, FromClause

from api import app
from api.accounts import signup
from api.accounts.mail_limits.limiter import MailDecision, MailShape
from api.database.engine import connected
from shared.outbox.appending import append_for_each
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.tables import outbox

_DECISION: Final = MailDecision("prompt", datetime.now(UTC), None, MailShape(), {})


def create_app() -> Flask:
    """Build the application, with the limits taken out of the signup."""
    # Plain functions: a mock that counts its calls would take its share of a signup.
    for name, instead in {
        "limited_mail": _mail,
        "connected": _connected,
        "MailRules.decide": _decide,
    }.items():
        mock.patch(f"{signup.__name__}.{name}", instead).start()
    return app.create_app()


def _mail(source: FromClause, _shape: MailShape) -> CTE:
    message = append_for_each(source, SendVerifyEmail, {"username": source.c.username})
    return message.returning(outbox.c.id.label("message_id")).cte("message")


@contextmanager
def _connected(engine: Engine, **_in_transaction: bool) -> Iterator[Connection]:
    with connected(engine) as connection:
        yield connection


def _decide(_rules: signup.MailRules, _connection: Connection, _email: str) -> MailDecision:
    return _DECISION
