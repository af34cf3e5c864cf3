"""Messages of several destinations, whose relay, workers and operator take the model's steps with the real statements.

What a send ends in is what the model says; the worker's own code writes it. Pauses between probes and delays are hours
long here, so that something is due only when the model says so.
"""

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final
from uuid import uuid4

from consumer.model.lease import Lease
from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import (
    Accepted,
    DestinationUnavailable,
    Discarded,
    Failed,
    Outcome,
    Released,
    TaskUnknown,
)
from consumer.model.results import Disposition
from consumer.stages.recording.outcome_writer import OutcomeWriter
from shared.database.connections import connect, transaction
from shared.outbox import publishing, reaping
from shared.outbox.claiming import claims
from shared.outbox.claiming.known_tasks import NO_TASKS, KnownTasks
from shared.outbox.columns import parse_counts
from shared.outbox.destinations import control, states
from shared.outbox.discovery import NO_DESTINATION
from shared.outbox.messages import DEFAULT, UNKNOWN
from shared.outbox.publishing import from_start
from tests.model.destinations.state import (
    ANSWERED,
    BLOCKED,
    DISCARDED,
    DONE,
    KNOWN,
    NOBODY,
    NOT_CONTACTED,
    NOWHERE,
    PENDING,
    REFUSED,
    UNAVAILABLE,
    DestinationsConfig,
    DestinationStep,
    DestinationsWorld,
)
from tests.model.destinations.state import UNKNOWN as UNKNOWN_TASK
from tests.rows import add_message
from tests.sql_against_model.destinations.names import (
    destination_name,
    destination_number,
    name_in,
    row_name,
    task_name,
)
from tests.sql_against_model.moment import Connection, agree

_LONG_SECONDS: Final = 3600.0
_SCALE: Final = 3600.0
_OUTCOMES: Final[dict[str, Outcome]] = {
    ANSWERED: Accepted(),
    REFUSED: Failed("refused"),
    UNAVAILABLE: DestinationUnavailable("down"),
    NOT_CONTACTED: Discarded("not needed"),
    BLOCKED: Released("not begun"),
    UNKNOWN_TASK: TaskUnknown(),
}


class DestinationsService:
    """Takes steps, and holds what can be seen against the model's world."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.own, self.relay, self.worker = (self.connect() for _ in range(3))
        self.lockers: dict[int, Connection] = {}
        self.taken: Counter[str] = Counter()

    def connect(self) -> Connection:
        connection = connect(self.database_url, "test")
        connection.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        return connection

    def begin(self, config: DestinationsConfig) -> None:
        self.unlock_all()
        self.own.execute("TRUNCATE outbox, outbox_finished, outbox_destinations")
        self.config = config
        for number in range(len(config.destinations)):
            self.own.execute("INSERT INTO outbox_destinations (name) VALUES (%s)", [destination_name(number)])
        self.ids = [
            add_message(
                self.own,
                task_name(message),
                {},
                destination=row_name(config.fresh(message).destination),
                max_retries=config.max_retries,
            )
            for message in range(len(config.tasks))
        ]
        tasks = {task_name(message): destination_name(number) for message, number in enumerate(config.tasks)}
        self.tasks = KnownTasks.of(tasks, dict.fromkeys(tasks, config.max_retries))
        self.in_hand: dict[int, ClaimedMessage] = {}

    def close(self) -> None:
        self.unlock_all()
        for connection in (self.own, self.relay, self.worker):
            connection.close()

    def unlock_all(self) -> None:
        for number in list(self.lockers):
            self.lockers.pop(number).close()

    def take(self, step: DestinationStep, before: DestinationsWorld, after: DestinationsWorld) -> None:
        take: Callable[[DestinationStep, DestinationsWorld, DestinationsWorld], None] = getattr(
            self, "begin_" if step.name == "begin" else step.name
        )
        take(step, before, after)
        self.taken[step.name] += 1
        self.compare(after)

    def compare(self, world: DestinationsWorld) -> None:
        rows = self.own.execute(
            "SELECT status, attempt, destination, failures #>> '{0,counts}' FROM outbox_messages ORDER BY id"
        ).fetchall()
        for number, (row, (status, attempt, destination, counts)) in enumerate(zip(world.messages, rows, strict=True)):
            counted = parse_counts(counts)
            agree(
                f"m{number}: status, attempt, destination, openings, unknown",
                (row.status, row.attempt, row.destination, row.openings, row.unknown != KNOWN),
                (
                    DONE if status == DISCARDED else status,
                    attempt if status != DISCARDED else row.attempt,
                    destination_number(destination),
                    counted.unavailable,
                    counted.unknown_since is not None,
                ),
            )
        for number, destination in enumerate(world.destinations):
            [seen] = self.own.execute(
                "SELECT opened_at IS NOT NULL, probe_id, coalesce(probe_at <= clock_timestamp(), false),"
                " paused_at IS NOT NULL FROM outbox_destinations WHERE name = %s",
                [destination_name(number)],
            ).fetchall()
            probe = None if destination.probe == NOBODY else self.ids[destination.probe]
            agree(
                f"{destination_name(number)}: open, probe, probe is due, paused",
                (destination.is_open, probe, destination.probe_due, destination.paused),
                seen,
            )

    # ---- the relay

    def publish(self, step: DestinationStep, before: DestinationsWorld, _after: DestinationsWorld) -> None:
        message = int(step.what[1:])
        if step.remark:
            self._probe(before.messages[message].destination, message)
            return
        with transaction(self.relay):
            agree("taken", self._due(before), self._take_batch())
            publishing.mark_published(self.relay, [self.ids[message]], "an epoch", _LONG_SECONDS)

    def publish_nothing(self, _step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        with transaction(self.relay):
            agree("taken", {}, self._take_batch())
            agree("probes", [], publishing.take_probe(self.relay, self._names()))

    def _probe(self, number: int, message: int) -> None:
        self.own.execute("UPDATE outbox SET due_at = now() - interval '2 h' WHERE id = %s", [self.ids[message]])
        with transaction(self.relay):
            probes = publishing.take_probe(self.relay, [destination_name(number)])
            agree(
                "probe",
                [(destination_name(number), self.ids[message])],
                [(each.destination, each.job.id) for each in probes],
            )
            publishing.mark_probe(self.relay, probes, _LONG_SECONDS)
            publishing.mark_published(self.relay, [self.ids[message]], "an epoch", _LONG_SECONDS)
        self.own.execute("UPDATE outbox SET due_at = now() - interval '1 s' WHERE id = %s", [self.ids[message]])

    def _take_batch(self) -> dict[int, list[int]]:
        """Return the ids of all messages that can be taken, by destination."""
        taken = publishing.take_batch(
            self.relay, [from_start(DEFAULT, name, 10) for name in (NO_DESTINATION, UNKNOWN, *self._names())]
        )
        return {
            destination_number(each.wanted.source.destination or None): sorted(job.id for job in each.jobs)
            for each in taken
        }

    def _names(self) -> list[str]:
        return [destination_name(number) for number in range(len(self.config.destinations))]

    def _due(self, world: DestinationsWorld) -> dict[int, list[int]]:
        due: dict[int, list[int]] = {}
        for message, row in enumerate(world.messages):
            number = row.destination
            blocked = number != NOWHERE and (world.destinations[number].is_open or world.destinations[number].paused)
            if row.status == PENDING and row.due and not blocked:
                due.setdefault(number, []).append(self.ids[message])
        return due

    def reap_running(self, step: DestinationStep, _before: DestinationsWorld, after: DestinationsWorld) -> None:
        id_ = self.ids[int(step.what[1:])]
        self.own.execute("UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = %s", [id_])
        agree("reaped", [id_], [each.id for each in reaping.reap_running(self.relay, 10, grace_seconds=0)])
        self._set_due(step, after)

    # ---- the worker

    def claim(self, step: DestinationStep, before: DestinationsWorld, after: DestinationsWorld) -> None:
        message, number = int(step.what[1:]), _changed(before, after)
        hand = after.hands[number]
        tasks = self.tasks if hand.knows else NO_TASKS
        [claim] = claims.claim(self.worker, [self.ids[message]], uuid4(), _LONG_SECONDS, tasks)
        agree("destination of the claim", hand.destination, destination_number(claim.destination))
        agree("former destination", hand.former, destination_number(claim.former_destination))
        self.in_hand[number] = ClaimedMessage(claim, Lease(monotonic(), _LONG_SECONDS))

    def read(self, _step: DestinationStep, before: DestinationsWorld, after: DestinationsWorld) -> None:
        number = _changed(before, after)
        name = self.in_hand[number].claim.destination
        state = states.read_destinations(self.worker, [name])[name]
        self.in_hand[number] = self.in_hand[number].with_destination(state)
        hand = after.hands[number]
        is_probe = self.in_hand[number].is_probe
        agree("open, probe", (hand.read_open, hand.is_probe), (state.is_open, is_probe))
        agree("blocked", hand.phase == BLOCKED, state.is_paused or (state.is_open and not is_probe))

    def begin_(self, _step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        """Nothing that a row would show; nor is what follows."""

    send = change = crash = stand_still = begin_

    def record(self, step: DestinationStep, before: DestinationsWorld, after: DestinationsWorld) -> None:
        number = _changed(before, after)
        result = AttemptResult(self.in_hand.pop(number), _OUTCOMES[before.hands[number].phase])
        with transaction(self.worker):
            writer = OutcomeWriter(self.worker, _SCALE, frozenset())
            [disposition] = writer.write([result]).values()
        agree("claim lost", step.remark == "claim lost", disposition is Disposition.CLAIM_LOST)
        self._set_due(step, after)

    # ---- the operator

    def pause(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        control.pause(self.own, name_in(step), "a test")

    def resume(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        agree("resumed", control.Resumed.RESUMED, control.resume(self.own, name_in(step)))

    def wait_returns(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        agree("in hand", 0, control.count_in_hand(self.own, name_in(step)))

    def wait_goes_on(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        agree("in hand", model=True, real=control.count_in_hand(self.own, name_in(step)) > 0)

    def lock(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        locker = self.lockers["ABC".index(step.what)] = self.connect()
        locker.execute("BEGIN")
        locker.execute("SELECT FROM outbox_destinations WHERE name = %s FOR UPDATE", [name_in(step)])

    def unlock(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        self.lockers.pop("ABC".index(step.what)).close()

    # ---- time

    def becomes_due(self, step: DestinationStep, _before: DestinationsWorld, after: DestinationsWorld) -> None:
        self._set_due(step, after)

    def _set_due(self, step: DestinationStep, after: DestinationsWorld) -> None:
        message = int(step.what[1:])
        if after.messages[message].status == PENDING:
            self.own.execute(
                "UPDATE outbox SET due_at = now() + make_interval(secs => %s) WHERE id = %s",
                [-1 if after.messages[message].due else _LONG_SECONDS, self.ids[message]],
            )

    def probe_falls_due(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        self.own.execute(
            "UPDATE outbox_destinations SET probe_at = now() - interval '1 s' WHERE name = %s", [name_in(step)]
        )

    def hour_passes(self, step: DestinationStep, _before: DestinationsWorld, _after: DestinationsWorld) -> None:
        self.own.execute(
            "UPDATE outbox SET failures = jsonb_set(failures, '{0,counts,unknown_since}', '1') WHERE id = %s",
            [self.ids[int(step.what[1:])]],
        )


def _changed(before: DestinationsWorld, after: DestinationsWorld) -> int:
    """Return the hand that took the step."""
    pairs = zip(before.hands, after.hands, strict=True)
    return next(number for number, (old, new) in enumerate(pairs) if old != new)
