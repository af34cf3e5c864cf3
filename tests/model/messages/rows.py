"""The transitions of one row, each as the UPDATE leaves it, and the record of a step."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.model.messages.guards import Guard
from tests.model.messages.state import DONE, NO_EPOCH, NO_TOKEN, PENDING, PUBLISHED, RUNNING, Config, Job, Row, World

PROTOCOL: Final = "protocol"  # relay or consumer, on their own
TIME: Final = "time"  # a lease ends, a message becomes due, PostgreSQL decides on a commit
OPERATOR: Final = "operator"
FAULT: Final = "fault"


class Step(NamedTuple):
    """What happened: the name of the statement or command, who did it, how it went."""

    name: str
    who: str
    remark: str = ""
    kind: str = PROTOCOL


Move = tuple[Step, World]


def fault(name: str, who: str, remark: str, after: World) -> Move:
    """A step that goes wrong: it uses up one of the run's faults."""
    return Step(name, who, remark, FAULT), after._replace(faults=after.faults - 1)


def back_to_pending(row: Row, config: Config, *, due: bool) -> Row:
    return row._replace(
        status=PENDING,
        generation=row.generation + config.keeps(Guard.NEW_GENERATION),
        due=due,
        token=NO_TOKEN,
        lease_over=False,
        epoch=NO_EPOCH,
        seen=False,
        return_excused=False,
    )


def finished(row: Row, status: str) -> Row:
    return row._replace(
        status=status,
        due=True,
        token=NO_TOKEN,
        lease_over=False,
        epoch=NO_EPOCH,
        seen=False,
        return_excused=False,
    )


def published(row: Row, config: Config, epoch: int) -> Row:
    return row._replace(status=PUBLISHED, token=NO_TOKEN, lease_over=False, epoch=_kept(config, epoch))


def renewed(row: Row, config: Config, epoch: int) -> Row:
    return row._replace(lease_over=False, epoch=_kept(config, epoch))


def _kept(config: Config, epoch: int) -> int:
    return epoch if config.keeps(Guard.EPOCH_ON_ROW) else NO_EPOCH


def claimed(row: Row, config: Config, token: int) -> Row:
    return row._replace(
        status=RUNNING,
        attempt=row.attempt + config.keeps(Guard.CLAIM_COUNTS),
        token=token,
        lease_over=False,
        epoch=NO_EPOCH,
        doubt=NO_TOKEN,
        seen=False,
        return_excused=False,
    )


def claimable(row: Row, config: Config, job: Job) -> bool:
    """The claim's WHERE. A done message has left the table: no UPDATE finds it, guarded or not."""
    if not config.keeps(Guard.CLAIM_ANY_GENERATION) and row.generation != job.generation:
        return False
    if row.status == PUBLISHED:
        return True
    if row.status == PENDING:
        return config.keeps(Guard.CLAIM_PENDING) and (row.due or not config.keeps(Guard.CLAIM_DUE))
    return row.status != DONE and not config.keeps(Guard.CLAIM_STATUS)
