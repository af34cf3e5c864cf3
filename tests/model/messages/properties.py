"""What the protocol promises, each as a check on one world, on one changed row or on one step.

A check answers whether all is well. The texts are what a failing test prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.model.messages.relay import find_lease_expired
from tests.model.messages.rows import Step
from tests.model.messages.state import (
    ACCEPTED,
    BEFORE_CLAIM,
    CLAIMED,
    DEAD,
    DISCARDED,
    DONE,
    NO_EPOCH,
    NO_TOKEN,
    PENDING,
    PUBLISHED,
    REJECTED,
    RUNNING,
    TOKEN_OF_THE_DEAD,
    UNANSWERED_DOT,
    UNWANTED,
    Config,
    Consumer,
    Job,
    Row,
    World,
    in_time,
)


class Change(NamedTuple):
    """What one step did to one row."""

    old: Row
    new: Row
    step: Step
    before: World
    config: Config

    def by(self, *names: str) -> bool:
        return self.step.name in names

    @property
    def actor(self) -> int:
        return int(self.step.who.rpartition(" ")[2])

    @property
    def consumer(self) -> Consumer:
        return self.before.consumers[self.actor]


class Passage(NamedTuple):
    """One step as a whole."""

    before: World
    step: Step
    after: World
    config: Config


class Property(NamedTuple):
    """One promise, with exactly one kind of check; `steps` are the names that a check of steps reads."""

    text: str
    world: Callable[[World, Config], bool] | None = None
    change: Callable[[Change], bool] | None = None
    passage: Callable[[Passage], bool] | None = None
    steps: frozenset[str] = frozenset()


def _ends_rightly(change: Change) -> bool:
    old, new = change.old, change.new
    if new.status == old.status:
        return True
    if new.status == DONE:
        return change.by("ack") and old.status == RUNNING and old.mails > 0
    if new.status == DEAD:
        rejected = change.by("fail") and change.consumer.phase == REJECTED
        return rejected or (change.by("fail", "reap_running") and old.attempt > change.config.max_retries)
    if new.status == DISCARDED:
        return change.by("discard") or (change.by("discard_claims") and change.consumer.phase == UNWANTED)
    return True


def _stays_finished(change: Change) -> bool:
    old, new = change.old, change.new
    if old.status in (DONE, DISCARDED):
        return new.status == old.status
    return old.status != DEAD or new.status == DEAD or change.by("retry", "discard")


def _accounts_for_attempts(change: Change) -> bool:
    old, new = change.old, change.new
    if old.status != RUNNING and new.status == RUNNING:
        return new.attempt == old.attempt + 1
    if change.by("release"):
        return new.attempt == old.attempt - 1
    if change.by("retry"):
        return new.attempt == 0
    ends_claim = old.status == RUNNING and new.status != RUNNING
    ended_by = ("ack", "fail", "discard_claims", "reap_running")
    return new.attempt == old.attempt and (not ends_claim or change.by(*ended_by))


def _reaps_for_cause(change: Change) -> bool:
    """A row whose worker is alive, in time and at work on it is never reaped."""
    if not change.by("reap_running"):
        return True
    token = change.old.token
    return token == TOKEN_OF_THE_DEAD or (token >= 0 and not in_time(change.before, token))


def _grows_a_generation(change: Change) -> bool:
    returns = change.old.status != PENDING and change.new.status == PENDING
    return change.new.generation == change.old.generation + returns


def _changes_its_own(change: Change) -> bool:
    own = ("ack", "fail", "release", "discard_claims", "renew_claim")
    return not change.by(*own) or change.old.token == change.actor


def _copies_for_cause(change: Change) -> bool:
    return not change.by("send") or change.new.mails == change.old.mails or change.old.mail_owed


def _has_its_columns(world: World, _: Config) -> bool:
    return all(
        (row.token != NO_TOKEN) == (row.status == RUNNING)
        and (row.epoch == NO_EPOCH or row.status == PUBLISHED)
        and (not row.lease_over or row.status in (PUBLISHED, RUNNING))
        for row in world.rows
    )


def _holds_alone(world: World, _: Config) -> bool:
    """A consumer that, by its own clock, may still send or acknowledge holds the row's only token."""
    for number, consumer in enumerate(world.consumers):
        may_act = consumer.phase in (CLAIMED, ACCEPTED, UNWANTED) or consumer.phase in UNANSWERED_DOT
        if may_act and not consumer.late:
            row = world.rows[consumer.job.message]
            acknowledged = consumer.phase == ACCEPTED and row.status == DONE
            discarded = consumer.phase == UNWANTED and row.status == DISCARDED
            if row.token != number and not acknowledged and not discarded:
                return False
    return True


def _waits_for_a_worker(world: World, _: Config) -> bool:
    return all(
        row.status != PUBLISHED or row.return_excused or _job_is_around(world, Job(message, row.generation))
        for message, row in enumerate(world.rows)
    )


def _job_is_around(world: World, job: Job) -> bool:
    in_hand = any(consumer.phase in BEFORE_CLAIM and consumer.job == job for consumer in world.consumers)
    return in_hand or job in world.redis.jobs


def _notices_amnesia(world: World, config: Config) -> bool:
    forgotten = {message for message, row in enumerate(world.rows) if row.status == PUBLISHED and not row.seen}
    return not forgotten or forgotten <= {each.job.message for each in find_lease_expired(world, config)}


def _pushes_once(passage: Passage) -> bool:
    """One transaction adds each id once; and before the first fault of a run no id is pushed a second time."""
    added = list(passage.after.redis.jobs)
    for job in passage.before.redis.jobs:
        added.remove(job)
    if len(added) != len(set(added)):
        return False
    nothing_happened_yet = passage.before.faults == passage.config.faults
    return not nothing_happened_yet or not any(passage.before.rows[job.message].seen for job in added)


def _wastes_no_job(passage: Passage) -> bool:
    """A claim that changes nothing means: somebody has it, it is finished, or it is not due."""
    if passage.step.remark[:6] != "0 rows":
        return True
    number = int(passage.step.who.rpartition(" ")[2])
    row = passage.before.rows[passage.before.consumers[number].job.message]
    return row.status not in (PENDING, PUBLISHED) or not row.due


LOST = Property(
    "done means accepted by the mail server, dead means out of attempts or refused for good, discarded means ordered "
    "or not wanted any more",
    change=_ends_rightly,
)
FINAL = Property("done and discarded are final, and only an operator revives a dead message", change=_stays_finished)
BOUNDED = Property(
    "attempts stay between 0 and max_retries + 1",
    world=lambda world, config: all(0 <= row.attempt <= config.max_retries + 1 for row in world.rows),
)
ACCOUNT = Property("an attempt is spent by a claim that ended in fail or was reaped", change=_accounts_for_attempts)
BLAME = Property("a claim is reaped only when its worker died or froze past its lease", change=_reaps_for_cause)
COPY = Property(
    "a second accepted mail needs a cause: between the last dot and our commit the worker died or froze past "
    "its lease, or the mail server's answer was lost",
    change=_copies_for_cause,
)
MAILS = Property(
    "every accepted mail costs an attempt",
    world=lambda world, _: all(row.mails <= row.attempt for row in world.rows),
)
GENERATION = Property(
    "the generation grows by one at each return to pending, and only there", change=_grows_a_generation
)
ONE_LIFE = Property(
    "no job id stands for a life that its message has not reached",
    world=lambda world, _: all(job.generation <= world.rows[job.message].generation for job in world.redis.jobs),
)
HOLDER = Property("who holds a claim by its own clock holds the row, alone", world=_holds_alone)
FENCE = Property(
    "ack, fail, release, discard_claims and renew_claim change a row only under their own claim",
    change=_changes_its_own,
)
NOT_EARLY = Property(
    "no message is claimed before it is due",
    change=lambda change: not change.by("claim", "commit_lands") or change.old.due,
)
REPUBLISH = Property(
    "a message that is merely waiting is not published again",
    change=lambda change: not change.by("return_missing") or change.old.return_excused,
)
WAITS = Property(
    "a published message that no fault has touched stands in the list or is in a consumer's hand",
    world=_waits_for_a_worker,
)
AMNESIA = Property(
    "what Redis has lost counts as expired at once, not only when its lease is over", world=_notices_amnesia
)
COLUMNS = Property("token, lease and epoch stand only in rows whose status has them", world=_has_its_columns)
PUSHES = Property("nothing is pushed twice without need", passage=_pushes_once, steps=frozenset({"push"}))
WASTE = Property("no popped job is thrown away that could run", passage=_wastes_no_job, steps=frozenset({"claim"}))

SAFETY = (
    LOST,
    FINAL,
    BOUNDED,
    ACCOUNT,
    BLAME,
    COPY,
    MAILS,
    GENERATION,
    ONE_LIFE,
    HOLDER,
    FENCE,
    NOT_EARLY,
    REPUBLISH,
    WAITS,
    AMNESIA,
    COLUMNS,
    PUSHES,
    WASTE,
)
