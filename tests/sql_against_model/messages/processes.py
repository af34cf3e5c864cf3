"""Relays and consumers that take the model's steps with the real statements."""

from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import psycopg
from rq.job import Job as RqJob

from shared.outbox import publishing, reaping
from shared.outbox.claiming import claims as of_consumer
from shared.outbox.claiming import releases, renewals
from shared.outbox.messages import QUEUES, JobRef
from shared.rq_format.ids import job_id
from tests.model.messages.rows import FAULT
from tests.model.messages.state import REJECTED, RETURNED, locked
from tests.sql_against_model.messages.seen import same_life
from tests.sql_against_model.messages.servers import Servers
from tests.sql_against_model.moment import LOCKED, DivergenceError, Moment, agree
from tests.taking import take_jobs

LONG_SECONDS = 3600.0


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
        """Have PostgreSQL end the session, and wait for that: its locks are gone when the next step begins."""
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
    batch: Sequence[JobRef] = ()
    expired: Sequence[JobRef] = ()
    epoch = "-"

    def take_batch(self, at: Moment) -> None:
        self.connection.execute("BEGIN")
        self.batch = take_jobs(self.connection, 10)
        agree("batch", self.servers.rows(at.after.relays[self.number].batch), sorted(self.batch))
        if not self.batch:
            self.connection.execute("ROLLBACK")

    def push(self, _at: Moment) -> None:
        self.epoch = self.servers.broker.push(self.batch)

    def mark_published(self, _at: Moment) -> None:
        marked = publishing.mark_published(self.connection, [row.id for row in self.batch], self.epoch, LONG_SECONDS)
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
        reaping.reap_running(self.connection, 10, grace_seconds=0)

    def find_lease_expired(self, at: Moment) -> None:
        expired = reaping.find_lease_expired(self.connection, self.servers.broker.epoch(), 10)
        expected = [
            (self.servers.row(each.job), each.epoch == at.before.redis.epoch)
            for each in at.after.relays[self.number].expired
        ]
        agree("expired", expected, sorted((each.job, each.same_epoch) for each in expired))
        self.expired = [each.job for each in expired]

    def read_lists(self, at: Moment) -> None:
        listed, self.epoch = self.servers.broker.read_lists(
            {job_id(row.id, row.generation).encode() for row in self.expired}
        )
        found = sorted(row for row in self.expired if job_id(row.id, row.generation).encode() in listed)
        agree("found", self.servers.rows(at.after.relays[self.number].found), found)

    def renew_found(self, at: Moment) -> None:
        found = at.before.relays[self.number].found

        def renew() -> int:
            return reaping.renew_found(self.connection, self.servers.rows(found), self.epoch, LONG_SECONDS)

        if at.step.remark == LOCKED:
            free = [job for job in found if same_life(at.before, job) and not locked(at.before, job.message)]
            agree("renewed beside a lock", len(free), self.meets_lock(renew))
        else:
            renew()

    def return_missing(self, at: Moment) -> None:
        missing = at.before.relays[self.number].missing

        def return_() -> list[JobRef]:
            return sorted(reaping.return_missing(self.connection, self.servers.rows(missing)))

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
            agree(
                "hash of an orphan exists",
                model=False,
                real=RqJob.exists(job_id(row.id, row.generation), self.servers.redis),
            )
            # What a worker does with an id that has no hash, here at once.
            self.servers.redis.lrem(self.servers.queue_key(row.queue), 0, job_id(row.id, row.generation))


class Consumer(Process):
    token: UUID | None = None
    held: of_consumer.Claim | None = None

    def pop(self, at: Moment) -> None:
        job = at.after.consumers[self.number].job
        popped = self.servers.redis.lpop(self.servers.queue_key(QUEUES[job.message]))
        agree("popped", self.servers.job_id(job).encode(), popped)
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

    def prepare(self, _at: Moment) -> None:
        """Nothing that a row would show."""

    def send(self, _at: Moment) -> None:
        """The same."""

    def deadline_passes(self, _at: Moment) -> None:
        """The same."""

    def stand_still(self, _at: Moment) -> None:
        """The same."""

    def renew_claim(self, at: Moment) -> None:
        self.end(at, lambda claim: renewals.renew_claim(self.connection, claim, LONG_SECONDS))

    def ack(self, at: Moment) -> None:
        self.end(at, lambda claim: bool(of_consumer.ack(self.connection, [claim])))

    def fail(self, at: Moment) -> None:
        def fail(claim: of_consumer.Claim) -> bool:
            is_dead = claim.is_last_attempt or at.before.consumers[self.number].phase == REJECTED
            return of_consumer.fail(
                self.connection, claim, "refused", details={}, delay_seconds=LONG_SECONDS, is_dead=is_dead
            )

        self.end(at, fail)

    def release(self, at: Moment) -> None:
        def release(claim: of_consumer.Claim) -> bool:
            return bool(releases.release(self.connection, [claim], "an outage", delay_seconds=LONG_SECONDS))

        self.end(at, release)

    def discard_claims(self, at: Moment) -> None:
        self.end(at, lambda claim: bool(of_consumer.discard_claims(self.connection, {claim: "not wanted any more"})))

    def end(self, at: Moment, statement: Callable[[of_consumer.Claim], bool]) -> None:
        assert self.held is not None
        agree(f"{at.step.name}: still ours", at.step.remark != "0 rows", statement(self.held))
        if at.step.kind == FAULT:
            self.reconnect()
