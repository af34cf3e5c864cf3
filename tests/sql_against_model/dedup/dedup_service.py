"""Appenders, a worker and an operator that take the steps of the model of dedup keys with the real statements.

The model numbers what was appended in the order of the commits; here each payload names its appender.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psycopg
from sqlalchemy import Connection as AlchemyConnection
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from shared.database.connections import connect
from shared.outbox import publishing
from shared.outbox.appending import append
from shared.outbox.claiming import claims, releases
from shared.outbox.claiming.claims import Claim
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.operations import dead_letters
from tests.model.dedup.state import (
    LATER,
    SOON,
    WAITING,
    DedupConfig,
    DedupStep,
    DedupWorld,
)
from tests.sql_against_model.moment import LOCKED, agree

_KEY: Final = "order 7"
_LONG_SECONDS: Final = 3600.0
_READ = """
    SELECT CASE WHEN status IN ('pending', 'published') AND claimed_at IS NULL THEN 'waiting'
                WHEN status = 'pending' THEN 'released' ELSE status END,
           payload ->> 'username',
           CASE WHEN claimed_at IS NULL THEN due_at <= now() END,
           CASE WHEN status NOT IN ('done', 'discarded') THEN dedup_key IS NOT NULL AND claimed_at IS NULL END
      FROM outbox_messages
     WHERE id = %s
"""


class Appended(NamedTuple):
    """An open transaction, and the id that append has returned."""

    connection: AlchemyConnection
    id: int


class DedupService:
    """Takes steps, and holds what can be seen against the model's world."""

    def __init__(self, database_url: str) -> None:
        self.engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
        self.own, self.worker = (connect(database_url, "test") for _ in range(2))
        for connection in (self.own, self.worker):
            connection.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        self.taken: Counter[str] = Counter()
        self.ids: list[int] = []
        self.open: dict[int, Appended] = {}

    def begin(self, config: DedupConfig) -> None:
        self.end_transactions()
        self.own.execute("TRUNCATE outbox, outbox_finished")
        self.config = config
        self.ids = []
        self.claim_in_hand: Claim | None = None

    def end_transactions(self) -> None:
        for appended in self.open.values():
            appended.connection.close()
        self.open = {}

    def close(self) -> None:
        self.end_transactions()
        self.engine.dispose()
        for connection in (self.own, self.worker):
            connection.close()

    def take(self, step: DedupStep, before: DedupWorld, after: DedupWorld) -> None:
        take: Callable[[DedupStep, DedupWorld, DedupWorld], None] = getattr(self, step.name)
        take(step, before, after)
        self.taken[f"{step.name}: {LOCKED}" if step.remark == LOCKED else step.name] += 1
        self.compare(after)

    def compare(self, world: DedupWorld) -> None:
        for number, (row, id_) in enumerate(zip(world.rows, self.ids, strict=True)):
            [seen] = self.own.execute(_READ, [id_]).fetchall()
            expected = (
                row.status,
                appender_of(world, row.data),
                row.due == SOON if row.status == WAITING else seen[2],
                row.has_key if seen[3] is not None else None,
            )
            agree(f"row {number}: status, payload, due, key", expected, seen)

    # ---- appenders

    def append(self, step: DedupStep, _before: DedupWorld, after: DedupWorld) -> None:
        number = int(step.who[-1])
        connection = self.engine.connect()
        message = SendVerifyEmail(username=_name(number))
        values: dict[str, Any] = {"delay_seconds": _LONG_SECONDS if self.config.dues[number] == LATER else 0}
        if step.remark == "without the key":
            agree("append beside another that is not committed", LOCKED, _tried(connection, message, values))
            id_ = append(connection, message, **values)
        else:
            id_ = append(connection, message, dedup_key=_KEY, **values)
        self.open[number] = Appended(connection, id_)
        change = after.appenders[number].change
        assert change is not None
        agree("became part of", None if change.row < 0 else self.ids[change.row], id_ if id_ in self.ids else None)

    def commit(self, step: DedupStep, before: DedupWorld, after: DedupWorld) -> None:
        with closing(self.open.pop(int(step.who[-1])).connection) as connection:
            appended = before.appenders[int(step.who[-1])]
            connection.commit()
        if len(after.rows) > len(before.rows):
            assert appended.change is not None
            [(id_,)] = self.own.execute(
                "SELECT id FROM outbox WHERE payload ->> 'username' = %s AND NOT id = ANY(%s)",
                [_name(int(step.who[-1])), self.ids],
            ).fetchall()
            self.ids.append(id_)

    def rollback(self, step: DedupStep, _before: DedupWorld, _after: DedupWorld) -> None:
        self.open.pop(int(step.who[-1])).connection.close()

    # ---- the worker

    def claim(self, step: DedupStep, before: DedupWorld, after: DedupWorld) -> None:
        number = int(step.who[-1])
        if step.remark == LOCKED:
            agree("claim of a locked row", LOCKED, self._meets_lock(self.ids[number]))
            return
        if before.rows[number].status == WAITING:
            publishing.mark_published(self.own, [self.ids[number]], "an epoch", _LONG_SECONDS)
        [self.claim_in_hand] = claims.claim(self.worker, [self.ids[number]], uuid4(), _LONG_SECONDS)
        expected = appender_of(after, after.worker.data)
        agree("payload as claimed", f'{{"username": "{expected}"}}', self.claim_in_hand.payload)

    def _meets_lock(self, id_: int) -> object:
        self.worker.execute("BEGIN; SET LOCAL lock_timeout = '1 ms'")
        try:
            return claims.claim(self.worker, [id_], uuid4(), _LONG_SECONDS)
        except psycopg.errors.LockNotAvailable:
            return LOCKED
        finally:
            self.worker.execute("ROLLBACK")

    def done(self, _step: DedupStep, _before: DedupWorld, _after: DedupWorld) -> None:
        agree("ack", {self._claim.id}, claims.ack(self.worker, [self._claim]))

    def release(self, _step: DedupStep, _before: DedupWorld, _after: DedupWorld) -> None:
        agree("release", {self._claim.id}, releases.release(self.worker, [self._claim], None))

    def fail(self, _step: DedupStep, _before: DedupWorld, _after: DedupWorld) -> None:
        is_ours = claims.fail(self.worker, self._claim, "no", details={}, delay_seconds=0, is_dead=True)
        agree("fail", model=True, real=is_ours)

    @property
    def _claim(self) -> Claim:
        assert self.claim_in_hand is not None
        return self.claim_in_hand

    # ---- the operator

    def discard(self, step: DedupStep, _before: DedupWorld, _after: DedupWorld) -> None:
        agree("discarded", model=True, real=dead_letters.discard(self.own, self.ids[int(step.who[-1])], "a test"))

    def retry(self, step: DedupStep, _before: DedupWorld, _after: DedupWorld) -> None:
        agree("retried", model=True, real=dead_letters.retry(self.own, self.ids[int(step.who[-1])]))


def _tried(connection: AlchemyConnection, message: SendVerifyEmail, values: dict[str, Any]) -> object:
    """Return the result of an append with the key that does not wait."""
    savepoint = connection.begin_nested()
    connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
    try:
        return append(connection, message, dedup_key=_KEY, **values)
    except OperationalError as exc:
        return LOCKED if isinstance(exc.orig, psycopg.errors.LockNotAvailable) else exc
    finally:
        savepoint.rollback()


def appender_of(world: DedupWorld, data: int) -> str:
    return next(_name(number) for number, each in enumerate(world.appenders) if each.data == data)


def _name(number: int) -> str:
    return f"appender {number}"
