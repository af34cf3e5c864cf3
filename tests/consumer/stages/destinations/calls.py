"""Tasks of three destinations, `crm`, `local` and that of the row, whose handler does what a test asks for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from consumer.model.results import Disposition
from consumer.task import Context, Done, Task
from shared.outbox.messages import LOCAL, Message
from tests.consumer.stages.processing.world import Row, World, world_of
from tests.rows import add_message

CRM: Final = "crm"


@dataclass(frozen=True, slots=True)
class CallCrm(Message):
    task: ClassVar[str] = "task:call_crm"
    queue: ClassVar[str] = "default"
    destination: ClassVar[str | None] = CRM


@dataclass(frozen=True, slots=True)
class WorkHere(Message):
    task: ClassVar[str] = "task:work_here"
    queue: ClassVar[str] = "default"
    destination: ClassVar[str | None] = LOCAL


@dataclass(frozen=True, slots=True)
class CallAnyone(Message):
    task: ClassVar[str] = "task:call_anyone"
    queue: ClassVar[str] = "default"


@dataclass(frozen=True, slots=True)
class WriteForCrm(Message):
    task: ClassVar[str] = "task:write_for_crm"
    queue: ClassVar[str] = "default"
    destination: ClassVar[str | None] = CRM


class Calls:
    """A world, and the calls of its handlers.

    Attributes:
        made: the ids of the messages whose handler was called.
        answer: what a handler does.

    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.connection = world.connection
        self.made: list[int] = []
        self.answer: Callable[[], object] = lambda: None
        world.tasks = world.tasks.with_tasks(
            Task(CallCrm, handle=self._handle, max_retries=3),
            Task(WorkHere, handle=self._handle),
            Task(CallAnyone, handle=self._handle),
            Task(WriteForCrm, prepare=_done),
        )

    def fails_with(self, error: BaseException) -> None:
        """Let the handlers raise this from now on."""

        def answer() -> object:
            raise error

        self.answer = answer

    def add(self, message: type[Message] = CallCrm, **columns: Any) -> int:
        """Append a message without a destination, as another program does."""
        return add_message(self.connection, message.task, payload={}, status="published", **columns)

    def process(self, message_id: int, **settings: Any) -> Disposition:
        return self.world.process(message_id, **settings)

    def row(self, message_id: int) -> Row:
        return self.world.message(message_id)

    def destination(self, name: str = CRM) -> Row:
        """Return the row of a destination, and the seconds until its next probe."""
        [row] = self.world.rows(
            "SELECT *, extract(epoch FROM probe_at - clock_timestamp())::float8 AS to_probe"
            " FROM outbox_destinations WHERE name = %s",
            [name],
        )
        return row

    def destinations(self) -> list[str]:
        """Return the names of the destinations that have a row."""
        return [row["name"] for row in self.world.rows("SELECT name FROM outbox_destinations ORDER BY name")]

    def open_breaker(self, probe_id: int | None, name: str = CRM) -> None:
        """Open a breaker, with a probe that is out."""
        self.connection.execute(
            "INSERT INTO outbox_destinations (name, opened_at, outages, probe_at, probe_id)"
            " VALUES (%s, now(), 1, '2100-01-01', %s)",
            [name, probe_id],
        )

    def _handle(self, context: Context, _message: Message) -> object:
        self.made.append(context.message_id)
        return self.answer()


def _done(_context: Context, messages: Mapping[int, WriteForCrm]) -> dict[int, Done]:
    return {message_id: Done() for message_id in messages}


@contextmanager
def calls_of(database_url: str, smtp_port: int) -> Iterator[Calls]:
    with world_of(database_url, smtp_port) as world:
        yield Calls(world)
