"""The consumer's steps: pop, claim, prepare, send, and how a claim ends."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.messages.guards import Guard
from tests.model.messages.rows import TIME, Move, Step, back_to_pending, claimable, claimed, fault, finished
from tests.model.messages.state import (
    ACCEPTED,
    ASKING,
    CLAIMED,
    DEAD,
    DISCARDED,
    DONE,
    FORGOTTEN_TOKEN,
    IDLE,
    OUTAGE,
    OVERDUE,
    POPPED,
    REFUSED,
    REJECTED,
    RUNNING,
    UNANSWERED_DOT,
    UNRENEWED,
    UNWANTED,
    WAITING,
    Config,
    Consumer,
    Job,
    Row,
    World,
    locked,
)


def consumer_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    phase = world.consumers[number].phase
    if phase == IDLE:
        yield from pop_steps(world, number)
    elif phase == POPPED:
        yield from claim_steps(world, config, number)
    elif phase == ASKING:
        yield from find_own_claim_steps(world, config, number)
    elif phase == CLAIMED:
        if config.unwanted:
            yield prepare_step(world, number)
        yield from send_steps(world, config, number)
    elif phase == OVERDUE:
        yield from overdue_steps(world, config, number)
    elif phase in UNANSWERED_DOT:
        yield from waiting_steps(world, number)
    else:
        yield from ending_steps(world, config, number)


def pop_steps(world: World, number: int) -> Iterator[Move]:
    """Any job of the list, whatever its place: more than a queue can do, and simpler."""
    jobs = world.redis.jobs
    for place, job in enumerate(jobs):
        if place == 0 or job != jobs[place - 1]:
            popped = world.with_jobs((*jobs[:place], *jobs[place + 1 :]))
            yield Step("pop", f"consumer {number}"), popped.with_consumer(number, Consumer(POPPED, job))


def claim_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    consumer = world.consumers[number]
    who = f"consumer {number}"
    message = consumer.job.message
    row = world.rows[message]
    if locked(world, message):
        # A plain UPDATE waits: no step. With SKIP LOCKED it would see no row, and the job would end.
        if not config.keeps(Guard.CLAIM_WAITS_FOR_LOCK):
            yield Step("claim", who, "0 rows: locked"), let_go(world, number)
        return
    if not claimable(row, config, consumer.job):
        yield Step("claim", who, "0 rows"), let_go(world, number)
        return
    # The consumer's own clock is started before the claim, so a consumer that was late to pop is in time again.
    held = world.with_row(message, claimed(row, config, number))
    yield Step("claim", who), held.with_consumer(number, Consumer(CLAIMED, Job(message, 0)))
    if world.faults:
        phase = ASKING if config.keeps(Guard.FIND_OWN_CLAIM) else POPPED
        in_doubt = world.with_row(message, row._replace(doubt=number, return_excused=True))
        unsure = in_doubt.with_consumer(number, consumer._replace(phase=phase))
        yield fault("claim", who, "its commit's reply is lost", unsure)


def find_own_claim_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    consumer = world.consumers[number]
    who = f"consumer {number}"
    message = consumer.job.message
    row = world.rows[message]
    if row.doubt == number and config.keeps(Guard.FIND_WAITS_FOR_LOCK):
        return  # a bare SELECT would see the row as it was; the claim tried again, or FOR UPDATE by id, waits
    if row.token != number:
        again = world.with_consumer(number, consumer._replace(phase=POPPED))
        yield Step("find_own_claim", who, "not there: claim again"), again
        return
    if not row.lease_over:
        yield Step("find_own_claim", who, "found"), world.with_consumer(number, Consumer(CLAIMED, Job(message, 0)))
    if row.lease_over or consumer.late:
        # Nothing was sent, and it was PostgreSQL that could not be reached: the attempt is given back.
        expired = world.with_consumer(number, Consumer(OUTAGE, Job(message, 0), consumer.late))
        yield Step("find_own_claim", who, "found, but its lease is over"), expired


def prepare_step(world: World, number: int) -> Move:
    """Nobody needs the mail any more. The model of accounts decides when that is so; here it may be at any attempt."""
    unwanted = world.with_consumer(number, world.consumers[number]._replace(phase=UNWANTED))
    return Step("prepare", f"consumer {number}", "not wanted any more"), unwanted


def send_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    """Up to the last dot and the answer to it. The check of the lease and the dot are one step (see protocol.py)."""
    consumer = world.consumers[number]
    who = f"consumer {number}"
    row = world.rows[consumer.job.message]

    def then(phase: str, new_row: Row = row) -> World:
        return world.with_row(consumer.job.message, new_row).with_consumer(number, consumer._replace(phase=phase))

    if consumer.late and config.keeps(Guard.LEASE_CHECK_BEFORE_DOT):
        yield Step("send", who, "too late: nothing is sent"), then(REFUSED)
        return
    sent = row._replace(mails=row.mails + 1, mail_owed=False)
    yield Step("send", who, "accepted"), then(ACCEPTED, sent)
    yield Step("send", who, "4xx"), then(REFUSED)
    yield Step("send", who, "5xx"), then(REJECTED)
    if world.faults:
        silence = REFUSED if config.keeps(Guard.SILENCE_SPENDS) else OUTAGE
        yield fault("send", who, "accepted, the answer is lost", then(silence, sent._replace(mail_owed=True)))
        yield fault("send", who, "silence after the dot, not accepted", then(silence))
        yield fault("send", who, "outage before the dot", then(OUTAGE))
        yield fault("send", who, "no answer before the deadline", then(OVERDUE))


def overdue_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    """The answer to the dot is late: wait for it under a renewed lease, or give up within the lease that is left.

    Which messages may wait, and how often, is left open here: more than can happen.
    """
    consumer = world.consumers[number]
    who = f"consumer {number}"
    message = consumer.job.message
    row = world.rows[message]
    given_up = world.with_consumer(number, consumer._replace(phase=REFUSED))
    yield Step("send", who, "no answer: given up"), given_up
    taken = row._replace(mails=row.mails + 1, mail_owed=True)
    if row.token == number and not consumer.late:  # of a frozen one it was decided when it froze
        yield Step("send", who, "no answer, but accepted: given up"), given_up.with_row(message, taken)
    if not config.keeps(Guard.RENEW_FIRST):
        yield Step("send", who, "waits on"), world.with_consumer(number, consumer._replace(phase=UNRENEWED))
    if row.status != RUNNING or (row.token != number and config.keeps(Guard.RENEW_TOKEN)):
        yield Step("renew_claim", who, "0 rows"), given_up
        return
    renewed = world.with_row(message, row._replace(lease_over=False))
    yield Step("renew_claim", who), renewed.with_consumer(number, consumer._replace(phase=WAITING, late=False))
    if world.faults:
        # Not committed and tried again is nothing new.
        yield fault("renew_claim", who, "not answered, committed", renewed)
        if not config.keeps(Guard.RENEW_ANSWERED):
            unsure = world.with_consumer(number, consumer._replace(phase=UNRENEWED))
            yield fault("renew_claim", who, "not answered, not committed", unsure)


def waiting_steps(world: World, number: int) -> Iterator[Move]:
    """The dot is sent and the lease was renewed: the answer comes, or the next deadline does.

    A frozen one finds no answer here: it was decided when it froze (consumer_faults).
    """
    consumer = world.consumers[number]
    who = f"consumer {number}"
    message = consumer.job.message
    row = world.rows[message]

    def then(phase: str, new_row: Row = row) -> World:
        return world.with_row(message, new_row).with_consumer(number, consumer._replace(phase=phase))

    if consumer.phase == WAITING or consumer.late:
        yield Step("deadline_passes", who, kind=TIME), then(OVERDUE)
    if not consumer.late:
        accepted = row._replace(mails=row.mails + 1, mail_owed=False)
        yield Step("send", who, "accepted late"), then(ACCEPTED, accepted)
        yield Step("send", who, "4xx late"), then(REFUSED)
        yield Step("send", who, "5xx late"), then(REJECTED)


def ending_steps(world: World, config: Config, number: int) -> Iterator[Move]:
    """ack, fail, release or discard_claims: a statement that commits by itself, repeated until it is answered."""
    consumer = world.consumers[number]
    who = f"consumer {number}"
    message = consumer.job.message
    row = world.rows[message]
    name, guard, ended = ending(row, config, consumer.phase)
    mine = row.status == RUNNING and (row.token == number or not config.keeps(guard))
    if name == "ack" and row.lease_over and not config.keeps(Guard.ACK_IGNORES_LEASE):
        mine = False
    if not mine:
        yield Step(name, who, "0 rows"), let_go(world, number)
        return
    committed = world.with_row(message, ended)
    yield Step(name, who), let_go(committed, number)
    if world.faults:
        # Not committed and repeated is nothing new; committed and repeated finds 0 rows.
        again = consumer
        if name == "ack" and not config.keeps(Guard.ACK_REPEATED):
            again = consumer._replace(phase=REFUSED)
            yield fault(name, who, "not answered, not committed", world.with_consumer(number, again))
        yield fault(name, who, "not answered, committed", committed.with_consumer(number, again))


def ending(row: Row, config: Config, phase: str) -> tuple[str, Guard, Row]:
    """The statement's name, the guard of its token, and the row after it."""
    if phase == ACCEPTED:
        return "ack", Guard.ACK_TOKEN, finished(row, DONE)
    if phase == UNWANTED:
        return "discard_claims", Guard.DISCARD_CLAIMS_TOKEN, finished(row, DISCARDED)
    returned = back_to_pending(row, config, due=False)
    if phase == OUTAGE:
        given_back = row.attempt - config.keeps(Guard.RELEASE_GIVES_BACK)
        return "release", Guard.RELEASE_TOKEN, returned._replace(attempt=given_back)
    spent = row.attempt > config.max_retries and config.keeps(Guard.FAIL_DEAD)
    return "fail", Guard.FAIL_TOKEN, finished(row, DEAD) if spent or phase == REJECTED else returned


def let_go(world: World, number: int) -> World:
    """The job returns normally. A claim of its own that is still in the row can now only wait for its lease."""
    message = world.consumers[number].job.message
    row = world.rows[message]
    if row.token == number:
        world = world.with_row(message, row._replace(token=FORGOTTEN_TOKEN))
    return world.with_consumer(number, Consumer())
