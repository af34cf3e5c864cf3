"""Describe worlds and steps in words."""

from __future__ import annotations

from collections.abc import Iterable

from tests.model.messages.rows import FAULT, Step
from tests.model.messages.state import (
    BEFORE_CLAIM,
    FORGOTTEN_TOKEN,
    IDLE,
    NO_EPOCH,
    NO_TOKEN,
    TOKEN_OF_THE_DEAD,
    Consumer,
    Job,
    Relay,
    Row,
    World,
)


def describe(world: World) -> list[str]:
    """One phrase for each row, for Redis and for each process."""
    return [
        *(f"m{number} {_row(row)}" for number, row in enumerate(world.rows)),
        f"redis life {world.redis.epoch}: {_ids(world.redis.jobs) or 'empty'}",
        *(f"relay {number} {_relay(relay)}" for number, relay in enumerate(world.relays)),
        *(f"consumer {number} {_consumer(consumer)}" for number, consumer in enumerate(world.consumers)),
    ]


def describe_step(number: int, step: Step, before: World, after: World) -> str:
    """One numbered line of a trace: who did what, and what is different then."""
    known = describe(before)
    changed = [phrase for phrase in describe(after) if phrase not in known]
    marked = "FAULT " if step.kind == FAULT else ""
    remark = f" ({step.remark})" if step.remark else ""
    done = f"{number:3} {marked}{step.who}: {step.name}{remark}"
    return f"{done:<72} -> {'; '.join(changed) or 'as before'}"


def _row(row: Row) -> str:
    phrases = [
        f"{row.status} g{row.generation}",
        f"attempt {row.attempt}",
        "" if row.due else "not due",
        f"pushed in life {row.epoch}" if row.epoch != NO_EPOCH else "",
        "lease over" if row.lease_over else "",
        f"held by {_holder(row.token)}" if row.token != NO_TOKEN else "",
        f"a claim by {_holder(row.doubt)} undecided" if row.doubt != NO_TOKEN else "",
        f"{row.mails} accepted" if row.mails else "",
    ]
    return ", ".join(phrase for phrase in phrases if phrase)


def _relay(relay: Relay) -> str:
    noted = relay.batch or tuple(each.job for each in relay.expired)
    phrases = [
        f"{relay.phase} {_ids(noted)}".rstrip(),
        f"found {_ids(relay.found)}" if relay.found else "",
        f"missing {_ids(relay.missing)}" if relay.missing else "",
        f"missed once {_ids(entry.job for entry in relay.missed)}" if relay.missed else "",
        "" if relay.connected else "its transaction ended",
    ]
    return ", ".join(phrase for phrase in phrases if phrase)


def _consumer(consumer: Consumer) -> str:
    if consumer.phase == IDLE:
        return IDLE
    job = _ids([consumer.job]) if consumer.phase in BEFORE_CLAIM else f"m{consumer.job.message}"
    return f"{consumer.phase} {job}" + (", late" if consumer.late else "")


def _ids(jobs: Iterable[Job]) -> str:
    return " ".join(f"m{message}-g{generation}" for message, generation in jobs)


def _holder(token: int) -> str:
    nobody = {TOKEN_OF_THE_DEAD: "a dead consumer", FORGOTTEN_TOKEN: "nobody who knows it"}
    return nobody.get(token, f"consumer {token}")
