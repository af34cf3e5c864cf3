"""Workers that take the steps of the model of `handle`, with the real statements and the code that records results.

A handler is not called: what becomes of it is what the model says. What it appends is a message that names its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

import psycopg

from consumer.model.lease import Lease
from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Completed, Outcome, Released, RenderFailed
from consumer.stages.database import Database, TaskConnection
from consumer.stages.handle import late
from consumer.stages.record import ResultRecorder
from shared.database.connections import LOCK_SECONDS, connect
from shared.outbox import reaping
from shared.outbox.claiming import claims, renewals
from shared.outbox.claiming.follow_ups import FollowUp
from shared.outbox.columns import parse_counts
from shared.outbox.messages import DEFAULT
from tests.model.handlers.handle_state import (
    APPENDS_WHAT_IS_REFUSED,
    OVERTIME,
    PUBLISHED,
    RUNNING,
    WORKING,
    HandleConfig,
    HandleStep,
    HandleWorld,
)
from tests.rows import add_message
from tests.sql_against_model.moment import agree

_TASK: Final = "task:handled"
_CHILD: Final = "task:appended"
_LONG_SECONDS: Final = 3600.0
_STOPPED: Final = Released("the worker was stopped")


class ForgetfulDatabase(Database):
    """Loses the answer to the next COMMIT, if it is told to."""

    loses_answer = False

    @contextmanager
    def transaction(self, *, lock_seconds: float = LOCK_SECONDS, also: bytes = b"") -> Iterator[TaskConnection]:
        with super().transaction(lock_seconds=lock_seconds, also=also) as connection:
            yield connection
        if self.loses_answer:
            self.loses_answer = False
            raise psycopg.OperationalError("the answer to COMMIT is lost")


class HandleService:
    """Takes steps, and holds what can be seen against the model's world."""

    def __init__(self, database_url: str) -> None:
        self.own = connect(database_url, "test")
        self.own.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        self.database = ForgetfulDatabase(database_url)
        self.taken: Counter[str] = Counter()

    def begin(self, config: HandleConfig) -> None:
        self.own.execute("TRUNCATE outbox, outbox_finished")
        self.config = config
        self.ids = [add_message(self.own, _TASK, {}, max_retries=config.max_retries) for _ in config.kinds]
        self.held: dict[int, ClaimedMessage] = {}
        self.tokens: dict[UUID, int] = {}
        self.refused: set[int] = set()
        self.recorders = [ResultRecorder(self.database, 1.0) for _ in range(sum(config.workers))]

    def close(self) -> None:
        self.own.close()
        self.database.close()

    def take(self, step: HandleStep, before: HandleWorld, after: HandleWorld) -> None:
        take: Callable[[HandleStep, HandleWorld, HandleWorld], None] = getattr(
            self, "nothing" if step.name == "begin" else step.name, self.nothing
        )
        take(step, before, after)
        self.taken[step.name] += 1
        self.compare(after)

    def compare(self, world: HandleWorld) -> None:
        rows = self.own.execute(
            """
            SELECT status, attempt, claim_token, lease_until < clock_timestamp(), failures #>> '{0,counts}',
                   (SELECT count(*) FROM outbox WHERE task = %s AND payload ->> 'of' = m.id::text)
              FROM outbox_messages AS m
             WHERE task = %s
             ORDER BY id
            """,
            [_CHILD, _TASK],
        ).fetchall()
        for number, (task, (status, attempt, token, lease_over, counts, children)) in enumerate(
            zip(world.tasks, rows, strict=True)
        ):
            is_running = task.status == RUNNING
            holder = task.token if task.token >= 0 else "one who is gone"
            agree(
                f"m{number}: status, attempt, holder, lease over, late, appended",
                (
                    task.status,
                    task.attempt,
                    holder if is_running else None,
                    task.lease_over if is_running else None,
                    task.lates,
                    task.children,
                ),
                (
                    PUBLISHED if status == "pending" else status,
                    attempt,
                    self.tokens.get(token, "one who is gone") if is_running else None,
                    lease_over if is_running else None,
                    parse_counts(counts).late,
                    children,
                ),
            )

    def nothing(self, _step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        """Nothing that a row would show."""

    def claim(self, step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        number, id_ = _place(step), self.ids[int(step.remark[1:])]
        self.own.execute("UPDATE outbox SET due_at = now() WHERE id = %s", [id_])
        token = uuid4()
        self.tokens = {**{key: place for key, place in self.tokens.items() if place != number}, token: number}
        with self.database.transaction() as connection:
            [claim] = claims.claim(connection, [id_], token, _LONG_SECONDS)
        self.held[number] = ClaimedMessage(claim, Lease(monotonic(), _LONG_SECONDS))

    def renew(self, step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        claim = self.held[_place(step)].claim
        with self.database.transaction() as connection:
            agree("renewed", {claim.id}, renewals.renew_claims(connection, [claim], _LONG_SECONDS))

    def renew_nothing(self, step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        with self.database.transaction() as connection:
            agree("renewed", set[int](), renewals.renew_claims(connection, [self.held[_place(step)].claim], 1.0))

    def ack(self, step: HandleStep, before: HandleWorld, _after: HandleWorld) -> None:
        number = _place(step)
        if step.remark == "refused":
            self.refused.add(number)
        elif before.places[number].unsure:
            self.recorders[number].retry()
        else:
            self.database.loses_answer = not step.is_own
            self.record(number, self.completed(number))

    def fail(self, step: HandleStep, before: HandleWorld, _after: HandleWorld) -> None:
        number = _place(step)
        if before.places[number].phase == OVERTIME:
            self.record(number, late(self.held[number], 1.0))
        elif number in self.refused:
            self.refused.remove(number)
            self.record(number, self.completed(number))
        else:
            self.record(number, RenderFailed("KeyError"))

    def release(self, step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        self.record(_place(step), Released("too late"))

    def shutdown(self, step: HandleStep, before: HandleWorld, after: HandleWorld) -> None:
        for number, place in enumerate(before.places):
            if f"worker {place.worker}" == step.who and place.phase in ("claimed", WORKING):
                self.record(number, _STOPPED)
        self.forget(step, before, after)

    def crash(self, step: HandleStep, before: HandleWorld, after: HandleWorld) -> None:
        self.forget(step, before, after)

    def exit(self, step: HandleStep, before: HandleWorld, after: HandleWorld) -> None:
        self.forget(step, before, after)

    def forget(self, step: HandleStep, before: HandleWorld, _after: HandleWorld) -> None:
        """Another process is in the place of the former one."""
        for number, place in enumerate(before.places):
            if f"worker {place.worker}" == step.who:
                self.refused.discard(number)
                self.recorders[number] = ResultRecorder(self.database, 1.0)
                self.tokens = {key: each for key, each in self.tokens.items() if each != number}

    def lease_ends(self, step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        self.own.execute(
            "UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = %s", [self.ids[int(step.who[1:])]]
        )

    def reap_running(self, step: HandleStep, _before: HandleWorld, _after: HandleWorld) -> None:
        reaped = [each.id for each in reaping.reap_running(self.own, 10, grace_seconds=0)]
        agree("reaped", model=True, real=self.ids[int(step.who[1:])] in reaped)

    def completed(self, number: int) -> Completed:
        id_ = self.held[number].claim.id
        is_refused = self.config.kinds[self.ids.index(id_)] == APPENDS_WHAT_IS_REFUSED
        destination = "Not A Destination" if is_refused else None
        return Completed([FollowUp(_CHILD, DEFAULT, destination, f'{{"of": {id_}}}')])

    def record(self, number: int, outcome: Outcome) -> None:
        self.recorders[number].record([AttemptResult(self.held[number], outcome)])


def _place(step: HandleStep) -> int:
    return int(step.who[-1])
