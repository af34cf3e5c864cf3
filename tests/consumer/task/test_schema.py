"""Typed messages: the schema that is derived from a message's annotations."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Literal
from uuid import UUID

import pytest
from marshmallow import EXCLUDE, Schema, fields

from consumer.task import Context, Task, Undeliverable
from shared.outbox import DEFAULT, Message


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Size:
    width: int
    height: int = 1


@dataclass(frozen=True, slots=True)
class Everything(Message):
    task: ClassVar[str] = "task:everything"
    queue: ClassVar[str] = DEFAULT

    text: str
    number: int = 0
    ratio: float = 0.5
    flag: bool = False
    key: UUID | None = None
    moment: datetime | None = None
    day: date | None = None
    price: Decimal | None = None
    mode: Literal["fast", 1] = "fast"
    colour: Colour = Colour.RED
    size: Size | None = None
    tags: list[str] = field(default_factory=list)
    pair: tuple[int, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    anything: Any = None


def nothing(_context: Context, _message: Message) -> None:
    """Do nothing."""


TASK = Task(Everything, handle=nothing)

FULL = Everything(
    text="a",
    number=2**70,
    ratio=2,
    flag=True,
    key=UUID(int=1),
    moment=datetime(2026, 1, 1, tzinfo=UTC),
    day=date(2026, 1, 1),
    price=Decimal("1.10"),
    mode=1,
    size=Size(3),
    tags=["x"],
    pair=(1, 2),
    counts={"a": 1},
    anything=[None, {"b": 1}],
)


@pytest.mark.parametrize("message", [FULL, Everything("only what is required")])
def test_what_was_appended_is_what_the_task_gets(message: Everything) -> None:
    assert TASK.load(json.dumps(message.payload())) == message


def test_unknown_keys_are_ignored() -> None:
    assert TASK.load('{"text": "a", "of a later version": 1, "size": {"width": 1, "more": 2}}') == Everything(
        "a", size=Size(1)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"text": 5},
        {"text": None},
        {"text": "a", "number": "1"},
        {"text": "a", "number": 1.0},
        {"text": "a", "number": True},
        {"text": "a", "ratio": 10**400},
        {"text": "a", "flag": 1},
        {"text": "a", "flag": "true"},
        {"text": "a", "key": 1},
        {"text": "a", "moment": "tomorrow"},
        {"text": "a", "price": "many"},
        {"text": "a", "mode": "slow"},
        {"text": "a", "mode": True},
        {"text": "a", "colour": "blue"},
        {"text": "a", "size": {"width": "1"}},
        {"text": "a", "size": [1]},
        {"text": "a", "tags": "x"},
        {"text": "a", "tags": [1]},
        {"text": "a", "counts": {"someone@example.com": "x"}},
    ],
)
def test_other_types_are_refused_and_no_value_is_shown(wrong: dict[str, object]) -> None:
    with pytest.raises(Undeliverable) as refused:
        TASK.load(json.dumps(wrong))

    assert refused.value.reason.startswith("the payload is malformed: {'")
    assert "example.com" not in refused.value.reason


@pytest.mark.parametrize("refusal", [ValueError, SystemExit])
def test_a_message_that_refuses_its_values_is_undeliverable(refusal: type[BaseException]) -> None:
    @dataclass(frozen=True)
    class Picky(Message):
        task: ClassVar[str] = "task:picky"
        queue: ClassVar[str] = DEFAULT

        text: str

        def __post_init__(self) -> None:
            raise refusal(self.text)

    with pytest.raises(Undeliverable) as refused:
        Task(Picky, handle=nothing).load('{"text": "someone@example.com"}')

    assert refused.value.reason == f"the payload is malformed: {refusal.__name__} while it was read"


def test_a_schema_of_the_tasks_own_replaces_the_derived_one() -> None:
    class Shouting(Schema):
        class Meta:
            unknown = EXCLUDE

        text = fields.Function(deserialize=lambda text: str(text).upper())

    loaded = Task(Everything, handle=nothing, schema=Shouting()).load('{"text": "a", "number": "x"}')

    assert asdict(loaded)["text"] == "A"
