"""Workers that take the steps of the model of `Done()` with the real statements.

The effects of a message are messages that its preparation appends, and so is the record of a mail. A COMMIT whose
answer is lost is a session that has not committed yet.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg

from shared.database.connections import MARKER, connect, marking
from shared.outbox import reaping
from shared.outbox.claiming import claims
from shared.outbox.claiming.claims import Claim
from shared.outbox.claiming.follow_ups import FollowUp, append_follow_ups
from shared.outbox.messages import DEFAULT
from tests.model.handlers.done_state import (
    ACKED,
    COMMITS,
    MAIL,
    PUBLISHED,
    REFUSED,
    RUNNING,
    DoneConfig,
    DoneStep,
    DoneWorld,
)
from tests.rows import add_message
from tests.sql_against_model.moment import Connection, DivergenceError, agree

TASK = "task:done"
EFFECT = "task:effect"
RECORD = "task:record"
_LONG_SECONDS = 3600.0


class DoneService:
    """Takes steps, and holds what can be seen against the model's world."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.own = self.connect()
        self.workers = [Worker(self, number) for number in range(2)]
        self.in_doubt: Connection | None = None
        self.taken: Counter[str] = Counter()
        self.ids: list[int] = []

    def connect(self) -> Connection:
        connection = connect(self.database_url, "test")
        connection.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        return connection

    def begin(self, config: DoneConfig) -> None:
        for worker in self.workers:
            worker.connection.execute("ROLLBACK")
        self.decide("ROLLBACK")
        self.own.execute("TRUNCATE outbox, outbox_finished")
        self.config = config
        self.ids = [add_message(self.own, TASK, {}, max_retries=config.max_retries) for _ in config.kinds]

    def close(self) -> None:
        self.decide("ROLLBACK")
        for connection in (self.own, *(worker.connection for worker in self.workers)):
            connection.close()

    def take(self, step: DoneStep, before: DoneWorld, after: DoneWorld) -> None:
        actor: object = self
        if step.who.startswith("worker"):
            actor = self.workers[int(step.who[-1])]
        take: Callable[[DoneStep, DoneWorld, DoneWorld], None] = getattr(actor, step.name)
        take(step, before, after)
        self.taken[step.name] += 1
        self.compare(after)

    def compare(self, world: DoneWorld) -> None:
        rows = self.own.execute(
            """
            SELECT status, attempt, claim_token,
                   (SELECT count(*) FROM outbox WHERE task = %(effect)s AND payload ->> 'of' = m.id::text),
                   (SELECT count(*) FROM outbox WHERE task = %(record)s AND payload ->> 'of' = m.id::text)
              FROM outbox_messages AS m
             WHERE task = %(task)s
             ORDER BY id
            """,
            {"task": TASK, "effect": EFFECT, "record": RECORD},
        ).fetchall()
        tokens: dict[UUID | None, int] = {worker.token: worker.number for worker in self.workers}
        for number, (row, (status, attempt, token, effects, records)) in enumerate(zip(world.rows, rows, strict=True)):
            seen = (
                PUBLISHED if status == "pending" else status,
                attempt,
                tokens.get(token, "one who is gone") if status == RUNNING else None,
                min(2, effects),
                min(2, records),
            )
            holder = row.token if row.token >= 0 else "one who is gone"
            agree(
                f"m{number}: status, attempt, holder, effects, records",
                (row.status, row.attempt, holder if row.status == RUNNING else None, row.effects, row.records),
                seen,
            )

    def ids_of(self, messages: Iterable[int]) -> list[int]:
        return [self.ids[message] for message in messages]

    def reap_running(self, step: DoneStep, _before: DoneWorld, _after: DoneWorld) -> None:
        id_ = self.ids[int(step.who[1:])]
        self.own.execute("UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = %s", [id_])
        agree("reaped", [id_], [each.id for each in reaping.reap_running(self.own, 10, grace_seconds=0)])

    def commit_lands(self, _step: DoneStep, _before: DoneWorld, _after: DoneWorld) -> None:
        self.decide("COMMIT")

    def commit_fails(self, _step: DoneStep, _before: DoneWorld, _after: DoneWorld) -> None:
        self.decide("ROLLBACK")

    def decide(self, how: LiteralString) -> None:
        if self.in_doubt is not None:
            with closing(self.in_doubt) as connection:
                connection.execute(how)
            self.in_doubt = None


class Worker:
    """One worker: its session, and the claims that it has."""

    def __init__(self, service: DoneService, number: int) -> None:
        self.service = service
        self.number = number
        self.connection = service.connect()
        self.claims: dict[int, Claim] = {}
        self.token: UUID | None = None
        self.marker = ""

    def reconnect(self) -> None:
        """Have PostgreSQL end the session, and wait for that."""
        with closing(self.connection) as connection:
            pid = connection.info.backend_pid
            self.service.own.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s", [pid]
            )
        self.connection = self.service.connect()

    def claim(self, _step: DoneStep, _before: DoneWorld, after: DoneWorld) -> None:
        batch = after.hands[self.number].batch
        ids = self.service.ids_of(batch)
        self.service.own.execute("UPDATE outbox SET due_at = now() WHERE status = 'pending' AND id = ANY(%s)", [ids])
        self.token = uuid4()
        claimed = {claim.id: claim for claim in claims.claim(self.connection, ids, self.token, _LONG_SECONDS)}
        agree("claimed", sorted(ids), sorted(claimed))
        self.claims = {message: claimed[self.service.ids[message]] for message in batch}

    def prepare(self, _step: DoneStep, before: DoneWorld, _after: DoneWorld) -> None:
        self.marker = uuid4().hex
        self.connection.execute(b"BEGIN" + marking(self.marker))
        for message in before.hands[self.number].batch:
            kind = self.service.config.kinds[message]
            payload = f'{{"of": {self.service.ids[message]}}}'
            task = RECORD if kind == MAIL else EFFECT
            append_follow_ups(self.connection, [FollowUp(task, DEFAULT, None, payload)])
            if kind == COMMITS:
                self.connection.execute("COMMIT")
            if kind == REFUSED:
                self.connection.execute("CREATE TEMPORARY TABLE twice (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
                self.connection.execute("INSERT INTO twice VALUES (1), (1)")

    def ack(self, step: DoneStep, before: DoneWorld, after: DoneWorld) -> None:
        batch = before.hands[self.number].batch
        to_ack = [self.claims[message] for message in batch if self.service.config.is_done_by(message)]
        acked = claims.ack_in(self.connection, to_ack, self.marker) if to_ack else set()
        [(marker,)] = self.connection.execute(f"SELECT {MARKER}").fetchall()
        if "no marker" in step.remark:
            agree("acknowledged without the marker", set[int](), acked)
            agree("the marker is there", model=False, real=marker == self.marker)
            return
        named = step.remark.removeprefix("only ").removesuffix(": rollback")
        agree("acknowledged", named, ", ".join(f"m{each}" for each in batch if self.service.ids[each] in acked))
        agree("the marker is there", model=True, real=marker == self.marker)
        if after.hands[self.number].phase != ACKED:
            self.connection.execute("ROLLBACK")

    def commit(self, step: DoneStep, _before: DoneWorld, _after: DoneWorld) -> None:
        if step.is_own:
            self.connection.execute("COMMIT")
            return
        self.service.in_doubt = self.connection
        self.connection = self.service.connect()

    def ask(self, step: DoneStep, before: DoneWorld, after: DoneWorld) -> None:
        batch = before.hands[self.number].batch
        ours = claims.own_among(self.connection, [self.claims[message] for message in batch])
        agree(step.name, sorted(self.service.ids_of(after.hands[self.number].batch)), sorted(ours))
        gone = [self.service.ids[message] for message in batch if self.service.ids[message] not in ours]
        done = [self.service.ids[message] for message in batch if before.rows[message].status == "done"]
        agree("done", set(done), claims.done_among(self.connection, gone))

    def send(self, step: DoneStep, before: DoneWorld, _after: DoneWorld) -> None:
        if step.remark == "claim lost":
            return
        message = int(step.remark[1:])
        expected = {self.service.ids[message]} if before.rows[message].token == self.number else set()
        agree("ack", expected, claims.ack(self.connection, [self.claims[message]]))

    def fail(self, _step: DoneStep, before: DoneWorld, after: DoneWorld) -> None:
        hand = before.hands[self.number]
        if hand.phase == ACKED:
            try:
                self.connection.execute("COMMIT")
            except psycopg.IntegrityError:
                pass
            else:
                raise DivergenceError("a COMMIT that PostgreSQL has to refuse")
        for message in hand.batch:
            row = before.rows[message]
            is_ours = claims.fail(
                self.connection,
                self.claims[message],
                "failed",
                details={},
                delay_seconds=0,
                is_dead=after.rows[message].status == "dead",
            )
            agree("fail: still ours", row.status == RUNNING and row.token == self.number, is_ours)

    def crash(self, step: DoneStep, _before: DoneWorld, _after: DoneWorld) -> None:
        if step.remark == "committed":
            self.connection.execute("COMMIT")
        self.token = None
        self.reconnect()

    def stand_still(self, step: DoneStep, _before: DoneWorld, _after: DoneWorld) -> None:
        if step.remark.startswith("PostgreSQL"):
            self.reconnect()
