"""Tasks whose effects can be counted: each of them adds one mark to a user's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import sleep
from typing import Any, ClassVar, Final

from consumer.task import Context, Done, Task
from shared.outbox import DEFAULT, Message

MODULE: Final = __name__
MARK: Final = "!"


@dataclass(frozen=True, slots=True)
class AddMark(Message):
    """Add a mark, in the transaction that acknowledges the message."""

    task: ClassVar[str] = "crash:add_mark"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"

    username: str


@dataclass(frozen=True, slots=True)
class AppendMark(Message):
    """Append AddMark, after the handler's lease was renewed."""

    task: ClassVar[str] = "crash:append_mark"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"

    username: str


def add_mark(context: Context, messages: Mapping[int, AddMark]) -> dict[int, Done]:
    usernames = [message.username for message in messages.values()]
    context.connection.execute(
        "UPDATE users SET full_name = full_name || %s WHERE username = ANY(%s)", [MARK, usernames]
    )
    return dict.fromkeys(messages, Done())


def append_mark(context: Context, message: AppendMark) -> None:
    if context.attempt == 1:
        sleep(1.8)  # the lease is four seconds, and a third of it is renewed
    context.append(AddMark(message.username))


TASKS: Final[list[Task[Any]]] = [Task(AddMark, prepare=add_mark), Task(AppendMark, handle=append_mark)]
