"""What is compared of a message, in the model and in PostgreSQL and Redis."""

from typing import NamedTuple

from tests.model.messages.state import NO_EPOCH, NO_TOKEN, PENDING, PUBLISHED, RUNNING, Job, World
from tests.model.messages.state import Row as ModelRow
from tests.sql_against_model.moment import Moment


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
