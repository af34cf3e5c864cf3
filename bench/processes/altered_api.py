"""APIs whose signups do less than ours: what the experiments over HTTP compare with.

`gunicorn 'bench.processes.altered_api:user_alone()'` serves one. Each function alters the modules of its own process.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest import mock

from flask import Flask
from redis import Redis
from rq import Queue
from sqlalchemy import CTE, Connection, Engine, FromClause, literal_column, select

from api import app
from api.accounts import service, signup
from api.accounts.mail_limits.limiter import MailDecision
from api.accounts.mail_limits.statements import MailShape
from api.database.engine import connected
from api.database.notifier import Notifier
from shared.outbox.appending import append_for_each
from shared.outbox.messages import CRITICAL, SendVerifyEmail
from shared.outbox.tables import outbox

_DECISION: Final = MailDecision(MailShape(), {})


def without_limits() -> Flask:
    """Build the API whose signup writes user and message in one statement, and knows no limits of mails."""
    _take_limits_out(_message)
    return app.create_app()


def user_alone() -> Flask:
    """Build the API whose signup writes the user and nothing else."""
    _take_limits_out(_no_message)
    _replace(Notifier, "notify", lambda _self: None)
    return app.create_app()


def enqueue_after_commit() -> Flask:
    """Build the API whose signup writes the user, commits, and enqueues to RQ. A crash in between loses the mail."""
    queue = Queue(CRITICAL, connection=Redis.from_url(os.environ["RQ_REDIS_URL"]))

    def sign_up_and_enqueue(
        engine: Engine, request: signup.SignUpRequest, rules: signup.MailRules
    ) -> signup.SignedUp | signup.Taken:
        outcome = signup.sign_up(engine, request, rules)
        queue.enqueue("tasks.send_verify_email", request.username, result_ttl=60)
        return outcome

    _replace(service, "sign_up", sign_up_and_enqueue)
    return user_alone()


def _take_limits_out(mail: Callable[[FromClause, MailShape], CTE]) -> None:
    _replace(signup, "limited_mail", mail)
    _replace(signup, "connected", _connected)
    _replace(signup.MailRules, "decide", _decide)


def _replace(owner: object, name: str, instead: object) -> None:
    # Plain functions: a mock that counts its calls would take part of a signup's time.
    mock.patch.object(owner, name, instead).start()


def _message(source: FromClause, _shape: MailShape) -> CTE:
    message = append_for_each(source, SendVerifyEmail, {"username": source.c.username})
    return message.returning(outbox.c.id.label("message_id")).cte("message")


def _no_message(source: FromClause, _shape: MailShape) -> CTE:
    return select(literal_column("0").label("message_id")).select_from(source).cte("no_message")


@contextmanager
def _connected(engine: Engine, **_in_transaction: bool) -> Iterator[Connection]:
    with connected(engine) as connection:
        yield connection


def _decide(_rules: signup.MailRules, _connection: Connection, _email: str) -> MailDecision:
    return _DECISION
