"""The whole service: take a step with real statements, and compare the result with the model's world."""

from collections import Counter
from contextlib import closing
from typing import Any, LiteralString
from uuid import uuid4

from shared.outbox.operations import dead_letters
from tests.model.messages.rows import OPERATOR
from tests.model.messages.state import IDLE, IN_TRANSACTION, PENDING, Config, World
from tests.redis_keys import KEYS
from tests.sql_against_model.messages.processes import Consumer, Relay
from tests.sql_against_model.messages.seen import Seen, epoch_seen, number_of, seen_in_model
from tests.sql_against_model.messages.servers import Servers
from tests.sql_against_model.moment import Moment, agree


class Service:
    """All of it: takes steps, and holds what can be seen against the model's world."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.relays = [Relay(servers, number) for number in range(2)]
        self.consumers = [Consumer(servers, number) for number in range(2)]
        self.taken: Counter[str] = Counter()

    def begin(self, config: Config) -> None:
        for process in (*self.relays, *self.consumers):
            process.begin()
        for message in list(self.servers.in_doubt):
            self.decide(message, "ROLLBACK")
        self.servers.empty(config.messages, config.max_retries)

    def close(self) -> None:
        for process in (*self.relays, *self.consumers):
            process.connection.close()
        for connection in (self.servers.own, *self.servers.in_doubt.values()):
            connection.close()

    def take(self, at: Moment) -> None:
        kind, _, number = at.step.who.partition(" ")
        actor: Any = {"relay": self.relays, "consumer": self.consumers}.get(kind)
        if actor is None:
            getattr(self, at.step.name)(at)
        else:
            getattr(actor[int(number)], at.step.name)(at)
        self.taken[at.step.name] += 1
        self.compare(at.after)

    def compare(self, world: World) -> None:
        epoch = self.servers.broker.epoch()
        tokens = {
            consumer.token: f"consumer {consumer.number}"
            for consumer in self.consumers
            if world.consumers[consumer.number].phase != IDLE
        }
        rows = self.servers.own.execute(
            """
            SELECT id, status, generation, attempt, due_at <= clock_timestamp(), lease_until < clock_timestamp(),
                   claim_token, broker_epoch
              FROM outbox_messages
             ORDER BY id
            """
        ).fetchall()
        agree("messages", self.servers.ids, [row[0] for row in rows])
        for message, (row, (_, *real)) in enumerate(zip(world.rows, rows, strict=True)):
            status, generation, attempt, due, lease_over, token, broker_epoch = real
            seen = Seen(
                status,
                generation,
                attempt,
                due if status == PENDING else None,
                lease_over,
                "nobody" if token is None else tokens.get(token, "one who is gone"),
                epoch_seen(status, known=broker_epoch is not None, present=broker_epoch == epoch),
            )
            agree(f"m{message}", seen_in_model(row, world), seen)
        expected = sorted(self.servers.job_id(job) for job in world.redis.jobs)
        agree("jobs in the lists", expected, sorted(job for jobs in self.servers.listed() for job in jobs))

    # What nobody decides, and what the operator does.

    def retry(self, at: Moment) -> None:
        agree("retried", model=at.step.kind == OPERATOR, real=dead_letters.retry(self.servers.own, self.id_of(at)))

    def discard(self, at: Moment) -> None:
        agree(
            "discarded",
            model=at.step.kind == OPERATOR,
            real=dead_letters.discard(self.servers.own, self.id_of(at), "a test"),
        )

    def becomes_due(self, at: Moment) -> None:
        self.servers.own.execute("UPDATE outbox SET due_at = now() - interval '1 s' WHERE id = %s", [self.id_of(at)])

    def lease_ends(self, at: Moment) -> None:
        self.servers.own.execute(
            "UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = %s", [self.id_of(at)]
        )

    def commit_lands(self, at: Moment) -> None:
        self.decide(number_of(at), "COMMIT")

    def commit_fails(self, at: Moment) -> None:
        self.decide(number_of(at), "ROLLBACK")

    def decide(self, message: int, how: LiteralString) -> None:
        with closing(self.servers.in_doubt.pop(message)) as connection:
            connection.execute(how)

    def redis_wiped(self, _at: Moment) -> None:
        self.servers.wipe()

    def redis_restarted(self, _at: Moment) -> None:
        self.servers.redis.set(KEYS.epoch_marker, uuid4().hex)

    def redis_restored(self, at: Moment) -> None:
        self.servers.wipe()
        self.servers.broker.push(self.servers.rows(at.after.redis.jobs))

    def postgres_outage(self, at: Moment) -> None:
        for relay in self.relays:
            if at.before.relays[relay.number].phase in IN_TRANSACTION:
                relay.end_session()
        for consumer in self.consumers:
            consumer.reconnect()

    def id_of(self, at: Moment) -> int:
        return self.servers.ids[number_of(at)]
