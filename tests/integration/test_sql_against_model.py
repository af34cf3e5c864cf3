"""The statements do to real rows what the model says, whatever happens in between.

Hypothesis draws which of the model's possible steps happens next. The step is carried out on PostgreSQL and Redis by
the functions that relay, consumer and operator use, each process on a connection of its own, and then the rows and
the lists are compared with the model's world. A divergence is told as the model tells its counterexamples.

Narrower than in the model: a pop takes the head of a list; a lease does not end while a claim in doubt holds its row;
after an outage of PostgreSQL reap_running waits until every consumer has said how its claim ended; what read_lists
concludes about missing rows is the model's own judgement. A Redis that was restarted has a new marker here, which
stands for its new run id. Wider: a statement that meets a lock or no row that
fits is tried too, and has to wait, to pass the row by, or to change nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, LiteralString, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job as RqJob

from consumer import statements as of_consumer
from outbox_relay import statements as of_relay
from outbox_relay.broker import Broker, open_broker
from outbox_relay.jobs import job_id
from outbox_relay.statements import Row
from shared import letters
from shared.database import connect
from shared.messages import QUEUES
from tests.model.describe import describe, describe_step
from tests.model.protocol import steps
from tests.model.relay import relay_steps
from tests.model.rows import FAULT, OPERATOR, Step
from tests.model.state import (
    BEFORE_CLAIM,
    DEAD,
    IDLE,
    IN_TRANSACTION,
    NO_EPOCH,
    NO_TOKEN,
    PENDING,
    PUBLISHED,
    READ,
    REJECTED,
    RETURNED,
    RUNNING,
    Config,
    Job,
    World,
    any_locked,
    locked,
)
from tests.model.state import Row as ModelRow
from tests.model.test_protocol import STEPS
from tests.rows import add_message

Connection = psycopg.Connection[tuple[Any, ...]]

LONG_SECONDS = 3600.0
MOST_STEPS = 40
ORDINARY_STEPS_FOR_A_RARE_ONE = 3
CONFIGS = [Config(faults=2), Config(messages=2, faults=2), Config(max_retries=0, faults=1, orders=1)]
LOCKED = "the row is locked"
NOTHING = "there is nothing to do"


class DivergenceError(AssertionError):
    """The real thing did something else than the model."""


def agree(what: str, model: object, real: object) -> None:
    if model != real:
        raise DivergenceError(f"{what}\n  in the model: {model}\n  in reality:   {real}")


class Moment(NamedTuple):
    """A step with the worlds around it; Hypothesis prints it as a person would tell it."""

    step: Step
    before: World
    after: World

    def __repr__(self) -> str:
        return ": ".join(filter(None, (self.step.who, self.step.name, self.step.remark)))


class Servers:
    """PostgreSQL and Redis, and the session in which the operator gives orders and time passes."""

    def __init__(self, database_url: str, redis: Redis[Any], broker: Broker) -> None:
        self.database_url = database_url
        self.redis = redis
        self.broker = broker
        self.own = self.connect()
        self.ids: list[int] = []
        self.in_doubt: dict[int, Connection] = {}  # by message: a claim whose COMMIT is not decided

    def connect(self) -> Connection:
        connection = connect(self.database_url, "test")
        connection.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        return connection

    def empty(self, messages: int, max_retries: int) -> None:
        self.wipe()
        self.own.execute("DELETE FROM outbox")
        self.own.execute("DELETE FROM outbox_finished")
        self.ids = [add_message(self.own, queue=QUEUES[each], max_retries=max_retries) for each in range(messages)]

    def wipe(self) -> None:
        """Empty Redis, which may be somebody's own: only of our keys."""
        for key in self.redis.scan_iter(match=f"{RQ_KEY_PREFIX}:*", count=1000):
            self.redis.unlink(key)

    def row(self, job: Job) -> Row:
        return Row(self.ids[job.message], job.generation, QUEUES[job.message])

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        return [self.row(job) for job in jobs]

    def queue_key(self, queue: str) -> str:
        return Queue(queue, connection=self.redis).key

    def listed(self) -> list[list[str]]:
        """The ids in the lists, queue by queue."""
        return [[job.decode() for job in self.redis.lrange(self.queue_key(queue), 0, -1)] for queue in QUEUES]


class Process:
    """A relay or a consumer: its session, and what the model does not know of it."""

    def __init__(self, servers: Servers, number: int) -> None:
        self.servers = servers
        self.number = number
        self.open()

    def open(self) -> None:
        self.connection = self.servers.connect()
        self.pid = self.connection.info.backend_pid

    def end_session(self) -> None:
        """Let PostgreSQL end it, and wait for that: its locks are gone when the next step begins."""
        self.servers.own.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s", [self.pid]
        )

    def reconnect(self) -> None:
        self.end_session()
        self.connection.close()
        self.open()

    def begin(self) -> None:
        """Leave nothing of the run before."""
        try:
            self.connection.execute("ROLLBACK")
        except psycopg.OperationalError:
            self.reconnect()

    def crash(self, _at: Moment) -> None:
        self.reconnect()

    def meets_lock(self, statement: Callable[[], object]) -> object:
        """What the statement gives, or LOCKED when it waits; nothing of it stays."""
        self.connection.execute("BEGIN")
        try:
            self.connection.execute("SET LOCAL lock_timeout = '1 ms'")
            return statement()
        except psycopg.errors.LockNotAvailable:
            return LOCKED
        finally:
            self.connection.execute("ROLLBACK")


class Relay(Process):
    batch: Sequence[Row] = ()
    suspects: Sequence[Row] = ()
    epoch = "-"

    def take_batch(self, at: Moment) -> None:
        self.connection.execute("BEGIN")
        self.batch = of_relay.take_batch(self.connection, 10)
        agree("batch", self.servers.rows(at.after.relays[self.number].batch), sorted(self.batch))
        if not self.batch:
            self.connection.execute("ROLLBACK")

    def push(self, _at: Moment) -> None:
        self.epoch = self.servers.broker.push(self.batch)

    def mark_published(self, _at: Moment) -> None:
        marked = of_relay.mark_published(self.connection, [row.id for row in self.batch], self.epoch, LONG_SECONDS)
        agree("marked", len(self.batch), marked)

    def commit(self, at: Moment) -> None:
        if "not committed" not in at.step.remark:
            self.connection.execute("COMMIT")
        if at.step.kind == FAULT:
            self.reconnect()

    def rollback(self, at: Moment) -> None:
        if at.before.relays[self.number].connected:
            self.connection.execute("ROLLBACK")
            return
        try:
            self.mark_published(at)
        except psycopg.OperationalError:
            self.reconnect()
        else:
            raise DivergenceError("the batch went on after its transaction had ended")

    def stand_still(self, _at: Moment) -> None:
        self.end_session()

    def reap_running(self, _at: Moment) -> None:
        of_relay.reap_running(self.connection, 10, grace_seconds=0)

    def find_suspects(self, at: Moment) -> None:
        suspects = of_relay.find_suspects(self.connection, self.servers.broker.epoch(), 10)
        expected = [
            (self.servers.row(suspect.job), suspect.epoch == at.before.redis.epoch)
            for suspect in at.after.relays[self.number].suspects
        ]
        agree("suspects", expected, sorted((suspect.row, suspect.same_epoch) for suspect in suspects))
        self.suspects = [suspect.row for suspect in suspects]

    def read_lists(self, at: Moment) -> None:
        listed, self.epoch = self.servers.broker.read_lists()
        found = sorted(row for row in self.suspects if job_id(row).encode() in listed)
        agree("found", self.servers.rows(at.after.relays[self.number].found), found)

    def renew_found(self, at: Moment) -> None:
        found = at.before.relays[self.number].found

        def renew() -> int:
            return of_relay.renew_found(self.connection, self.servers.rows(found), self.epoch, LONG_SECONDS)

        if at.step.remark == LOCKED:
            free = [job for job in found if same_life(at.before, job) and not locked(at.before, job.message)]
            agree("renewed beside a lock", len(free), self.meets_lock(renew))
        else:
            renew()

    def return_missing(self, at: Moment) -> None:
        missing = at.before.relays[self.number].missing

        def return_() -> list[Row]:
            return sorted(of_relay.return_missing(self.connection, self.servers.rows(missing)))

        if at.step.remark == LOCKED:
            free = [job for job in missing if same_life(at.before, job) and not locked(at.before, job.message)]
            agree("returned beside a lock", self.servers.rows(free), self.meets_lock(return_))
        else:
            after = at.after.relays[self.number]
            agree("returned", self.servers.rows(after.missing if after.phase == RETURNED else ()), return_())

    def delete_orphans(self, at: Moment) -> None:
        orphans = self.servers.rows(at.before.relays[self.number].missing)
        self.servers.broker.delete_orphans(orphans)
        for row in orphans:
            agree("hash of an orphan exists", model=False, real=RqJob.exists(job_id(row), self.servers.redis))
            # What a worker does with an id that has no hash, here at once.
            self.servers.redis.lrem(self.servers.queue_key(row.queue), 0, job_id(row))


class Consumer(Process):
    token: UUID | None = None
    held: of_consumer.Claim | None = None

    def pop(self, at: Moment) -> None:
        job = at.after.consumers[self.number].job
        popped = self.servers.redis.lpop(self.servers.queue_key(QUEUES[job.message]))
        agree("popped", job_id(self.servers.row(job)).encode(), popped)
        self.token = uuid4()

    def claim(self, at: Moment) -> None:
        message = at.before.consumers[self.number].job.message
        if at.step.remark == LOCKED:
            agree("claim of a locked row", LOCKED, self.meets_lock(lambda: self.try_claim(message)))
            return
        if at.step.kind == FAULT:
            self.connection.execute("BEGIN")
        self.held = self.try_claim(message)
        agree("claimed", at.step.remark != "0 rows", self.held is not None)
        if at.step.kind == FAULT:
            self.servers.in_doubt[message] = self.connection
            self.open()

    def try_claim(self, message: int) -> of_consumer.Claim | None:
        assert self.token is not None
        claims = of_consumer.claim(self.connection, [self.servers.ids[message]], self.token, LONG_SECONDS)
        return claims[0] if claims else None

    def find_own_claim(self, at: Moment) -> None:
        message = at.before.consumers[self.number].job.message
        if is_found := at.step.remark.startswith("found"):
            # The claim is tried again first, so that a commit under way is waited for.
            agree("claim of one's own row", None, self.try_claim(message))
        assert self.token is not None
        found = of_consumer.find_own_claims(self.connection, [self.servers.ids[message]], self.token)
        self.held = found[0] if found else None
        agree("own claim found", is_found, self.held is not None)

    def send(self, _at: Moment) -> None:
        """Nothing that a row would show."""

    def stand_still(self, _at: Moment) -> None:
        """The same."""

    def ack(self, at: Moment) -> None:
        self.end(at, lambda claim: bool(of_consumer.ack(self.connection, [claim])))

    def fail(self, at: Moment) -> None:
        def fail(claim: of_consumer.Claim) -> bool:
            is_dead = claim.is_last_attempt or at.before.consumers[self.number].phase == REJECTED
            return of_consumer.fail(
                self.connection, claim, "refused", delay_seconds=LONG_SECONDS, is_dead=is_dead, maybe_accepted=False
            )

        self.end(at, fail)

    def put_back(self, at: Moment) -> None:
        def put_back(claim: of_consumer.Claim) -> bool:
            return bool(of_consumer.put_back(self.connection, [claim], "an outage", delay_seconds=LONG_SECONDS))

        self.end(at, put_back)

    def end(self, at: Moment, statement: Callable[[of_consumer.Claim], bool]) -> None:
        assert self.held is not None
        agree(f"{at.step.name}: still ours", at.step.remark != "0 rows", statement(self.held))
        if at.step.kind == FAULT:
            self.reconnect()


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
        expected = sorted(job_id(self.servers.row(job)) for job in world.redis.jobs)
        agree("jobs in the lists", expected, sorted(job for jobs in self.servers.listed() for job in jobs))

    # What nobody decides, and what the operator does.

    def retry(self, at: Moment) -> None:
        agree("retried", model=at.step.kind == OPERATOR, real=letters.retry(self.servers.own, self.id_of(at)))

    def discard(self, at: Moment) -> None:
        agree(
            "discarded",
            model=at.step.kind == OPERATOR,
            real=letters.discard(self.servers.own, self.id_of(at), "a test"),
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
        self.servers.redis.set(f"{RQ_KEY_PREFIX}:outbox:epoch", uuid4().hex)

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


class Seen(NamedTuple):
    """What is compared of a message. None: nothing asks for it in this state, and the model does not keep it."""

    status: str
    generation: int
    attempt: int
    is_due: bool | None
    is_lease_over: bool | None
    claimed_by: str
    pushed_into: str | None


def seen_in_model(row: ModelRow, world: World) -> Seen:
    holder = f"consumer {row.token}" if row.token >= 0 else "one who is gone"
    return Seen(
        row.status,
        row.generation,
        row.attempt,
        row.due if row.status == PENDING else None,
        row.lease_over if row.status in (PUBLISHED, RUNNING) else None,
        "nobody" if row.token == NO_TOKEN else holder,
        epoch_seen(row.status, known=row.epoch != NO_EPOCH, present=row.epoch == world.redis.epoch),
    )


def epoch_seen(status: str, *, known: bool, present: bool) -> str | None:
    if status not in (PENDING, PUBLISHED):
        return None
    return ("the present life" if present else "another life") if known else "none"


def number_of(at: Moment) -> int:
    """The message in "message 0" or "m0"."""
    return next(int(character) for character in f"{at.step.who}{at.step.remark}" if character.isdigit())


def same_life(world: World, job: Job) -> bool:
    row = world.rows[job.message]
    return row.status == PUBLISHED and row.generation == job.generation


def moments(world: World, config: Config, heads: set[str], servers: Servers) -> Iterator[Moment]:
    """What can happen now, as far as it can be done here."""
    for step, after in steps(world, config):
        if step.name == "pop":
            job = after.consumers[int(step.who[-1])].job
            possible = job_id(servers.row(job)) in heads
        elif step.name == "lease_ends":
            possible = world.rows[int(step.who[-1])].doubt == NO_TOKEN
        else:
            possible = step.name != "reap_running" or not world.grace
        if possible:
            yield Moment(step, world, after)
    for step in tries(world, config):
        yield Moment(step, world, world)


def tries(world: World, config: Config) -> Iterator[Step]:
    """What the model leaves out, for it changes nothing: statements that meet a lock, or no row that fits."""
    for number, consumer in enumerate(world.consumers):
        if consumer.phase in BEFORE_CLAIM and locked(world, consumer.job.message):
            yield Step("claim", f"consumer {number}", LOCKED)
    for number in range(len(world.relays)):
        yield from tries_of_relay(world, config, number)
    for message, row in enumerate(world.rows):
        if row.status != DEAD:
            yield Step("retry", "operator", f"m{message}, {NOTHING}")
        if row.status not in (DEAD, PENDING):
            yield Step("discard", "operator", f"m{message}, {NOTHING}")


def tries_of_relay(world: World, config: Config, number: int) -> Iterator[Step]:
    relay = world.relays[number]
    who = f"relay {number}"
    if relay.phase == READ and any_locked(world, relay.found or relay.missing):
        yield Step("renew_found" if relay.found else "return_missing", who, LOCKED)
    if relay.phase == IDLE:
        something = {step.name for step, _ in relay_steps(world, config, number)}
        for name in ("take_batch", "find_suspects", "reap_running"):
            if name not in something and not (name == "reap_running" and world.grace):
                yield Step(name, who, NOTHING)


class Run:
    """The model and the real thing, side by side from their beginning on."""

    def __init__(self, service: Service, config: Config) -> None:
        self.service = service
        self.config = config
        self.world = config.initial()
        self.story = ["; ".join(describe(self.world))]
        service.begin(config)

    def possible(self) -> list[Moment]:
        heads = {jobs[0] for jobs in self.service.servers.listed() if jobs}
        return [*moments(self.world, self.config, heads, self.service.servers)]

    def take(self, chosen: Moment) -> None:
        self.story.append(describe_step(len(self.story), *chosen))
        try:
            self.service.take(chosen)
        except (DivergenceError, psycopg.OperationalError, psycopg.IntegrityError) as exc:
            raise DivergenceError("\n".join([*self.story, str(exc)])) from exc
        self.world = chosen.after


def by_kind(possible: list[Moment]) -> list[list[list[Moment]]]:
    """What is drawn from: a kind, a name, a variant. What has many variants is not to crowd out the rest."""
    ordinary: dict[str, list[Moment]] = {}
    rare: dict[str, dict[str, list[Moment]]] = {}
    for each in possible:
        step = each.step
        is_rare = step.kind == FAULT or each.before is each.after or step.remark == "Redis does not answer"
        names = rare.setdefault(step.who.split()[0], {}) if is_rare else ordinary
        names.setdefault(step.name, []).append(each)
    if not ordinary:
        return []
    rare_kinds = [[*names.values()] for names in rare.values()]
    return [[*ordinary.values()]] * max(1, ORDINARY_STEPS_FOR_A_RARE_ONE * len(rare_kinds)) + rare_kinds


def walk(service: Service, data: st.DataObject) -> None:
    run = Run(service, data.draw(st.sampled_from(CONFIGS)))
    for _ in range(MOST_STEPS):
        drawn_from = by_kind(run.possible())
        if not drawn_from:
            break
        run.take(data.draw(st.sampled_from(drawn_from).flatmap(st.sampled_from).flatmap(st.sampled_from)))


# Always the same walks; shrunk where they diverge.
ECONOMICAL = settings(max_examples=60, derandomize=True, deadline=None, report_multiple_bugs=False)
walk_and_shrink = settings(ECONOMICAL, phases=[Phase.generate, Phase.shrink])(given(data=st.data())(walk))
walk_until_divergence = settings(ECONOMICAL, phases=[Phase.generate])(given(data=st.data())(walk))


def follow(service: Service, config: Config, path: Iterable[str]) -> None:
    run = Run(service, config)
    for told in path:
        possible = {repr(each): each for each in run.possible()}
        assert told in possible
        run.take(possible[told])


def publish(relay: int) -> tuple[str, ...]:
    return tuple(f"relay {relay}: {step}" for step in ("take_batch", "push", "mark_published", "commit"))


def claim(consumer: int) -> tuple[str, ...]:
    return f"consumer {consumer}: pop", f"consumer {consumer}: claim"


def look_for_published(relay: int, *then: str) -> tuple[str, ...]:
    return tuple(f"relay {relay}: {step}" for step in ("find_suspects", "read_lists", *then))


CLAIM_IN_DOUBT = (*publish(0), "consumer 0: pop", "consumer 0: claim: its commit's reply is lost")
RETURN = ("return_missing", "delete_orphans")
TAKEN_OVER = (
    *("consumer 0: stand_still: past its time", "message 0: lease_ends", "relay 1: reap_running"),
    *(*publish(1), *claim(1)),
)
FAIL_AND_PUBLISH = ("consumer 0: send: 4xx", "consumer 0: fail", "message 0: becomes_due", *publish(1))
PATHS = {
    "a-claim-in-doubt-lands": (
        *(*CLAIM_IN_DOUBT, f"consumer 0: claim: {LOCKED}", "message 0: commit_lands"),
        *("consumer 0: find_own_claim: found", f"relay 0: reap_running: {NOTHING}"),
        *(f"operator: retry: m0, {NOTHING}", f"operator: discard: m0, {NOTHING}"),
        *("consumer 0: send: outage before the dot", "consumer 0: put_back"),
        *("message 0: becomes_due", *publish(1), *claim(1), "consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-claim-in-doubt-fails": (
        *(*CLAIM_IN_DOUBT, "message 0: commit_fails", "consumer 0: find_own_claim: not there: claim again"),
        *("consumer 0: claim", "consumer 0: send: 5xx", "consumer 0: fail"),
        *("operator: retry: m0", "operator: discard: m0"),
    ),
    "a-claim-in-doubt-outlives-its-consumer": (
        *(*CLAIM_IN_DOUBT, "consumer 0: crash", "message 0: commit_lands", "message 0: lease_ends"),
        *("relay 0: reap_running", *publish(0)),
    ),
    "a-claim-in-doubt-is-taken-over": (
        *(*CLAIM_IN_DOUBT, "message 0: commit_lands", *TAKEN_OVER),
        *("consumer 0: find_own_claim: not there: claim again", "consumer 0: claim: 0 rows"),
    ),
    "a-return-meets-a-claim-in-doubt": (
        *(*CLAIM_IN_DOUBT, "redis: redis_wiped", *look_for_published(0), f"relay 0: return_missing: {LOCKED}"),
        *("message 0: commit_lands", "relay 0: return_missing", "consumer 0: find_own_claim: found"),
    ),
    "redis-forgets": (
        *(*publish(0), "redis: redis_wiped", *look_for_published(0, *RETURN), *publish(1)),
        *("redis: redis_restarted: with its data", *look_for_published(1, "renew_found"), *claim(0)),
    ),
    "redis-remembers-an-older-life": (
        *(*publish(0), "consumer 0: pop", "consumer 0: crash", "message 0: lease_ends"),
        *(*look_for_published(1), *look_for_published(1, *RETURN)),
        *("redis: redis_restored: with older data: m0-g0", *claim(1), "consumer 1: send: 4xx", "consumer 1: fail"),
    ),
    "a-frozen-relay-loses-its-batch": (
        *("relay 0: take_batch", f"relay 1: take_batch: {NOTHING}"),
        *("relay 0: push", "relay 0: stand_still: PostgreSQL ends its transaction"),
        *(*publish(1), "relay 0: rollback: the connection is dead"),
        *(*claim(0), "consumer 1: pop", "consumer 1: claim: 0 rows"),
        *("consumer 0: send: accepted", "consumer 0: ack: not answered, committed", "consumer 0: ack: 0 rows"),
    ),
    "postgres-goes-away": (
        *("relay 0: take_batch", "relay 0: push", "relay 0: mark_published", "postgres: postgres_outage"),
        *("relay 0: rollback: the connection is dead", *claim(0), "consumer 0: send: 4xx", "consumer 0: fail"),
        f"relay 1: take_batch: {NOTHING}",
    ),
    "a-renewal-comes-after-the-claim": (
        *(*publish(0), "message 0: lease_ends", *look_for_published(0), *claim(0)),
        *("consumer 0: crash", "message 0: lease_ends", "relay 0: renew_found"),
    ),
    "a-renewal-meets-a-claim-in-doubt": (
        *(*CLAIM_IN_DOUBT, "redis: redis_restored: with older data: m0-g0", *look_for_published(0)),
        *(f"relay 0: renew_found: {LOCKED}", "message 0: commit_lands", "relay 0: renew_found"),
    ),
    "an-older-job-comes-too-early": (
        *(*publish(0), *claim(0), "consumer 0: send: 4xx", "consumer 0: fail"),
        *("redis: redis_restored: with older data: m0-g0", "consumer 1: pop", "consumer 1: claim: 0 rows"),
    ),
    "a-late-acknowledgement-counts": (
        *(*publish(0), *claim(0), "consumer 0: send: accepted", "consumer 0: stand_still: past its time"),
        *("message 0: lease_ends", "consumer 0: ack"),
    ),
    "a-renewal-comes-a-life-late": (
        *(*publish(0), "message 0: lease_ends", *look_for_published(0), *claim(0), *FAIL_AND_PUBLISH),
        *("message 0: lease_ends", "relay 0: renew_found"),
    ),
    "a-return-comes-a-life-late": (
        *(*publish(0), "consumer 0: pop", "redis: redis_wiped", *look_for_published(0), "consumer 0: claim"),
        *(*FAIL_AND_PUBLISH, "relay 0: return_missing"),
    ),
    "a-frozen-consumer-acknowledges-too-late": (
        *(*publish(0), *claim(0), "consumer 0: send: accepted", *TAKEN_OVER),
        *("consumer 0: ack: 0 rows", "consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-frozen-consumer-fails-too-late": (
        *(*publish(0), *claim(0), "consumer 0: send: 4xx", *TAKEN_OVER),
        *("consumer 0: fail: 0 rows", "consumer 1: crash", "message 0: lease_ends", "relay 0: reap_running"),
        "operator: retry: m0",
    ),
    "a-frozen-consumer-puts-back-too-late": (
        *(*publish(0), *claim(0), "consumer 0: send: outage before the dot", *TAKEN_OVER),
        *("consumer 0: put_back: 0 rows", "consumer 1: send: accepted", "consumer 1: ack"),
    ),
}


@pytest.fixture
def service(database_url: str, redis_url: str) -> Iterator[Service]:
    with (
        Redis.from_url(redis_url) as redis,
        closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker,
        closing(Service(Servers(database_url, redis, broker))) as service,
    ):
        yield service


def test_real_statements_do_what_the_model_says(service: Service) -> None:
    walk_and_shrink(service=service)
    for path in PATHS.values():
        follow(service, Config(faults=2, orders=2), path)

    print(f"\n{service.taken.total()} steps: {service.taken}")  # noqa: T201 - for pytest -s
    assert set(service.taken) == STEPS


class Unguarded:
    """A connection on which one clause of a statement is another."""

    def __init__(self, connection: Connection, clause: str, instead: str) -> None:
        self.connection = connection
        self.clause = clause
        self.instead = instead

    def execute(self, query: str, parameters: Any = None) -> Any:
        assert self.clause in query
        return self.connection.execute(query.replace(self.clause, self.instead).encode(), parameters)


def leave_out(monkeypatch: pytest.MonkeyPatch, statement: Callable[..., Any], clause: str, instead: str) -> None:
    def unguarded(connection: Connection, *args: Any, **kwargs: Any) -> Any:
        return statement(Unguarded(connection, clause, instead), *args, **kwargs)

    monkeypatch.setattr(sys.modules[statement.__module__], statement.__name__, unguarded)


@pytest.mark.parametrize(
    ("statement", "clause", "instead"),
    [
        (of_relay.reap_running, "lease_until < (SELECT clock_timestamp())", "lease_until IS NOT NULL"),
        (of_relay.take_batch, "FOR UPDATE SKIP LOCKED", ""),
    ],
    ids=["reap_running", "take_batch"],
)
def test_walks_notice_a_missing_guard(
    service: Service, monkeypatch: pytest.MonkeyPatch, statement: Callable[..., Any], clause: str, instead: str
) -> None:
    leave_out(monkeypatch, statement, clause, instead)

    with pytest.raises(DivergenceError, match="in reality") as noticed:
        walk_until_divergence(service=service)

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s


@pytest.mark.parametrize(
    ("statement", "clause", "instead", "path", "noticed_at"),
    [
        (
            of_consumer.claim,
            "(status = 'published' OR (status = 'pending' AND due_at <= now()))",
            "true",
            "a-claim-in-doubt-lands",
            "claim of one's own row",
        ),
        (
            of_consumer.ack,
            "claim_token = claim.token",
            "claim.token IS NOT NULL",
            "a-frozen-consumer-acknowledges-too-late",
            "ack: still ours",
        ),
        (of_consumer.fail, "claim_token = %(token)s", "true", "a-frozen-consumer-fails-too-late", "fail: still ours"),
    ],
    ids=["claim", "ack", "fail"],
)
def test_path_notices_a_missing_guard(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    statement: Callable[..., Any],
    clause: str,
    instead: str,
    path: str,
    noticed_at: str,
) -> None:
    leave_out(monkeypatch, statement, clause, instead)

    with pytest.raises(DivergenceError, match=noticed_at) as noticed:
        follow(service, Config(faults=2), PATHS[path])

    print(f"\n{noticed.value}")  # noqa: T201 - for pytest -s
