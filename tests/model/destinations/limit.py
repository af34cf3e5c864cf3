"""A limit of so many sends in a second, shared by several workers, in ticks of a fifth of a second.

    worker   take (what tokens there are; it may have waited for the destination's row), send
    time     tick; it ends the time of tokens

One token is added at each tick. What was sent in the last second is part of the world.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from tests.model.search import Found, search

TICKS_IN_A_SECOND: Final = 5
RATE: Final = 5  # in a second: one for each tick
VALID_TICKS: Final = 2
BURST: Final = RATE - VALID_TICKS
MOST_IN_A_SECOND: Final = 2 * RATE

NOT_ASKED: Final = -1


class LimitGuard(Enum):
    """One clause of the rules about limits."""

    TOKENS_EXPIRE = "send: only with a token that was asked for lately"
    SMALLER_BURST = "take: the burst leaves out what is added while a token is good"
    CLOCK_AFTER_LOCK = "take: the clock is read while the row is locked"

    __hash__ = object.__hash__


class Sender(NamedTuple):
    """A worker, and the tokens that it has. Ages are in ticks."""

    tokens: int = 0
    age: int = 0  # since it asked for them
    asked: int = NOT_ASKED  # how long ago it read the clock, while it waits for the row: only without a guard


class LimitWorld(NamedTuple):
    """Everything at one moment."""

    bucket: int
    refilled: int  # how many ticks ago
    senders: tuple[Sender, ...]
    sent: tuple[int, ...]  # in each of the last ticks, the present one last

    def with_sender(self, number: int, sender: Sender) -> LimitWorld:
        senders = (*self.senders[:number], sender, *self.senders[number + 1 :])
        return self._replace(senders=tuple(sorted(senders)))


class LimitStep(NamedTuple):
    """What happened."""

    name: str
    remark: str = ""
    is_own: bool = True

    def __str__(self) -> str:
        return self.name + (f" ({self.remark})" if self.remark else "")


def explore_limit(without: LimitGuard | None = None) -> Found[LimitWorld]:
    """Visit every world that can be reached, until the limit is passed by more than its burst."""
    burst = RATE if without is LimitGuard.SMALLER_BURST else BURST
    first = LimitWorld(burst, 0, (Sender(), Sender()), (0,) * TICKS_IN_A_SECOND)

    def keeps_limit(_before: LimitWorld, _step: LimitStep, after: LimitWorld) -> bool:
        return sum(after.sent) <= MOST_IN_A_SECOND

    return search(
        first,
        lambda world: _steps(world, burst, without),
        {"in no second more is sent than the limit and its burst": keeps_limit},
    )


def _steps(world: LimitWorld, burst: int, without: LimitGuard | None) -> Iterator[tuple[LimitStep, LimitWorld]]:
    yield LimitStep("tick"), _ticked(world, burst, expire=without is not LimitGuard.TOKENS_EXPIRE)
    for number, sender in enumerate(world.senders):
        if number and sender == world.senders[number - 1]:
            continue  # a twin
        if sender.tokens:
            sent = (*world.sent[:-1], world.sent[-1] + sender.tokens)
            yield LimitStep("send", str(sender.tokens)), world.with_sender(number, Sender())._replace(sent=sent)
        elif without is LimitGuard.CLOCK_AFTER_LOCK and sender.asked == NOT_ASKED:
            yield LimitStep("ask"), world.with_sender(number, Sender(asked=0))
        else:
            yield from _take(world, burst, number, max(0, sender.asked))


def _take(world: LimitWorld, burst: int, number: int, asked: int) -> Iterator[tuple[LimitStep, LimitWorld]]:
    """Refill by the clock as it was read, and take all that is there."""
    added = max(0, world.refilled - asked)
    tokens = min(burst, world.bucket + added)
    if tokens or asked:
        taken = world.with_sender(number, Sender(tokens, asked) if tokens else Sender())._replace(
            bucket=0, refilled=asked
        )
        yield LimitStep("take", f"{tokens}, by the clock of {asked} ticks ago"), taken


def _ticked(world: LimitWorld, burst: int, *, expire: bool) -> LimitWorld:
    """Numbers that make no difference any more stay where they are, to keep the worlds few."""
    senders = tuple(sorted(_aged(sender, burst, expire=expire) for sender in world.senders))
    return LimitWorld(world.bucket, min(burst, world.refilled + 1), senders, (*world.sent[1:], 0))


def _aged(sender: Sender, burst: int, *, expire: bool) -> Sender:
    if not sender.tokens:
        return sender if sender.asked == NOT_ASKED else Sender(asked=min(burst, sender.asked + 1))
    if sender.age >= VALID_TICKS:
        return Sender() if expire else sender
    return Sender(sender.tokens, sender.age + 1)
