"""A task: a message class, and the work for its messages."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from math import inf, isfinite
from typing import Any, Final, Generic, TypeVar, cast

from marshmallow import Schema, ValidationError

from consumer.task.context import Context
from consumer.task.results import Prepared, Undeliverable
from consumer.task.schema import schema_of
from shared.outbox.columns import LARGEST_NUMBER
from shared.outbox.messages import DESTINATION_FORM, LOCAL, QUEUES, Message

_Message = TypeVar("_Message", bound=Message)

Backoff = Callable[[int], float] | Sequence[float]

LONGEST_DELAY_SECONDS: Final = 365 * 86_400.0
"""A row may hold any number of attempts, and PostgreSQL's times cannot hold the fourth power of a large one."""

_LONGEST_NAME_BYTES: Final = 200
_LONGEST_TIMEOUT_SECONDS: Final = 86_400

_RANDOM: Final = random.SystemRandom()


@dataclass(frozen=True)
class Task(Generic[_Message]):
    """A message class, and the work for its messages: either `prepare` or `handle`.

    Attributes:
        message: the class. It is a dataclass that names the task, its queue and its destination.
        prepare: returns, for the messages that were claimed together, what is to be sent for each, or that it is done.
            It runs in one transaction. When it raises, its writes are rolled back and it is called again for each
            message alone.
        handle: does the work for one message, in a thread and outside a transaction, at least once.
        schema: validates the payload, in place of the schema that is derived from the message's annotations.
        max_retries: the retries of a message whose row does not say how many.
        backoff: the seconds before the next attempt: by the number of the attempt that failed, or as a list, whose
            last entry counts for all later attempts. By default it grows with the fourth power of that number.
        timeout_seconds: how long the function may run before the attempt fails.

    Raises:
        TypeError: it has both functions or none, or a class or function of the wrong kind.
        ValueError: one of the names or numbers is impossible.

    """

    message: type[_Message]
    prepare: Callable[[Context, Mapping[int, _Message]], Mapping[int, Prepared]] | None = field(
        default=None, kw_only=True
    )
    handle: Callable[[Context, _Message], object] | None = field(default=None, kw_only=True)
    schema: Schema | None = field(default=None, kw_only=True)
    max_retries: int = field(default=10, kw_only=True)
    backoff: Backoff | None = field(default=None, kw_only=True)
    timeout_seconds: float = field(default=60.0, kw_only=True)

    def __post_init__(self) -> None:
        """Check everything, so that a mistake stops the worker at its start."""
        _check_class(self.message)
        _check_work(self.message.__name__, self.prepare, self.handle)
        _check_numbers(self.message.__name__, self.max_retries, self.timeout_seconds, self.backoff)
        if self.schema is None:
            object.__setattr__(self, "schema", schema_of(self.message))
        elif not isinstance(self.schema, Schema):
            raise TypeError(f"{self.message.__name__}: schema has to be an instance of a marshmallow schema")

    @property
    def name(self) -> str:
        """The name in the outbox."""
        return self.message.task

    @property
    def destination(self) -> str:
        """The destination of a message whose row names none."""
        return self.message.destination or LOCAL

    def load(self, payload: str | None) -> _Message:
        """Return the message that this payload, JSON text, describes.

        Raises:
            Undeliverable: it is not a valid payload. The reason contains none of its values.

        """
        if payload is None:
            raise Undeliverable("the payload is larger than 4 MiB when decompressed: append a smaller one")
        try:
            content = json.loads(payload)
        except (ValueError, RecursionError) as exc:  # PostgreSQL takes longer numbers and deeper nesting than Python
            raise Undeliverable("the payload is malformed: a number is too long, or it is nested too deeply") from exc
        if not isinstance(content, dict):
            raise Undeliverable("the payload is malformed: it is not a JSON object")
        try:
            loaded = cast("Schema", self.schema).load(content)
            return loaded if isinstance(loaded, self.message) else self.message(**loaded)
        except ValidationError as exc:
            raise Undeliverable(f"the payload is malformed: {exc.messages}") from exc
        except (Exception, SystemExit) as exc:
            raise Undeliverable(f"the payload is malformed: {type(exc).__name__} while it was read") from exc

    def delay_seconds(self, attempt: int) -> float:
        """Return the delay after the failed attempt with this number. The first attempt is 1.

        A `backoff` that raises, or that returns no usable number, counts as none.
        """
        delay = _default_delay(attempt) if self.backoff is None else _delay_of(self.backoff, attempt)
        return min(LONGEST_DELAY_SECONDS, delay)


def default_delay_seconds(attempt: int) -> float:
    """Return the delay after a failed attempt of a message whose task is unknown or has no backoff of its own."""
    return min(LONGEST_DELAY_SECONDS, _default_delay(attempt))


def _default_delay(attempt: int) -> float:
    """Return the delay of asynq (hibiken/asynq, DefaultRetryDelayFunc).

    The formula is n^4 + 15 + random(0..30) * (n + 1), where n is the number of retries so far.
    """
    retried = attempt - 1
    return float(retried**4 + 15 + _RANDOM.randint(0, 30) * (retried + 1))


def _delay_of(backoff: Backoff, attempt: int) -> float:
    try:
        delay = float(backoff(attempt) if callable(backoff) else backoff[min(attempt, len(backoff)) - 1])
    except (Exception, SystemExit):  # noqa: BLE001 - a task's bug must not keep its failure from being written
        return _default_delay(attempt)
    return delay if isfinite(delay) and delay >= 0 else _default_delay(attempt)


def _check_class(message: Any) -> None:  # noqa: ANN401 - a module may pass anything
    if not isinstance(message, type) or not issubclass(message, Message) or not is_dataclass(message):
        raise TypeError(f"{message!r} is not a dataclass that inherits from shared.outbox.Message")
    name = getattr(message, "task", None)
    if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= _LONGEST_NAME_BYTES:
        raise ValueError(f"{message.__name__}: `task` has to name the task, in 1 to {_LONGEST_NAME_BYTES} bytes")
    if getattr(message, "queue", None) not in QUEUES:
        raise ValueError(f"{message.__name__}: `queue` has to be CRITICAL or DEFAULT")
    destination: Any = message.destination
    if destination is not None and not (isinstance(destination, str) and DESTINATION_FORM.fullmatch(destination)):
        raise ValueError(
            f"{message.__name__}: `destination` has to be at most 64 characters of a-z 0-9 _ . : -,"
            " and begin with a letter or a digit"
        )


def _check_work(name: str, prepare: object, handle: object) -> None:
    work = handle if prepare is None else prepare
    if (prepare is None) is (handle is None) or not callable(work):
        raise TypeError(f"{name}: a task needs exactly one function, prepare or handle")
    if iscoroutinefunction(work) or isasyncgenfunction(work) or isgeneratorfunction(work):
        raise TypeError(f"{name}: the function has to be a plain one: neither async nor a generator")


def _check_numbers(name: str, max_retries: object, timeout_seconds: object, backoff: object) -> None:
    if type(max_retries) is not int or not 0 <= max_retries <= LARGEST_NUMBER:
        raise ValueError(f"{name}: max_retries has to be a whole number from 0 to {LARGEST_NUMBER}")
    if not isinstance(timeout_seconds, int | float) or not 0 < timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
        raise ValueError(f"{name}: timeout_seconds has to be a number above 0, at most {_LONGEST_TIMEOUT_SECONDS}")
    if backoff is not None and not callable(backoff):
        try:
            are_delays = [0 <= each < inf for each in cast("Any", backoff)]
        except TypeError:
            are_delays = []
        if not are_delays or not all(are_delays):
            raise ValueError(f"{name}: backoff has to be a function, or a list of seconds that are not negative")
