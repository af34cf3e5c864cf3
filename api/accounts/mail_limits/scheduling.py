"""When one more verification mail may go to a mailbox: plain rules over the mails that it got and is to get.

Nothing here asks a clock or a database.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from shared.settings.mail_limits import MailLimits

State = Literal["prompt", "waiting", "daily", "discarded"]
"""Of a mail that was asked for: not held back, due when it fits, the one that a mailbox gets each day beyond all its
limits, and discarded."""

ONE_WAITS: Final = "a mail to this address waits for a limit already, and its link serves each account of the address"
NO_ROOM: Final = "so many mails to this mailbox wait already that no limit leaves room for another one"

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class KnownMail:
    """A mail that the mailbox got, or is to get.

    Attributes:
        due_at: when it was or is due.
        address: the HMAC of the exact address.
        client: the HMAC of the network of whoever asked for it; None for all who are unknown.
        state: what was decided when it was asked for.

    """

    due_at: datetime
    address: bytes
    client: bytes | None
    state: State


@dataclass(frozen=True, slots=True)
class RequestedMail:
    """A mail that is asked for.

    Attributes:
        now, wanted: the present, and when it would be due without limits.
        address, client: as of a KnownMail.
        is_plain: its address is the mailbox's own, without a tag.

    """

    now: datetime
    wanted: datetime
    address: bytes
    client: bytes | None
    is_plain: bool


@dataclass(frozen=True, slots=True)
class _Window:
    """How many mails may be due in any time of this length; None for no limit."""

    moments: Sequence[datetime]
    span: timedelta
    most: int | None

    def has_room(self, moment: datetime) -> bool:
        """Tell whether no such time that holds the moment would have more mails than allowed."""
        if self.most is None:
            return True
        first, end = bisect_right(self.moments, moment - self.span), bisect_left(self.moments, moment + self.span)
        near = list(self.moments[first:end])
        if len(near) < self.most:
            return True
        insort(near, moment)
        return all(last - first >= self.span for first, last in zip(near, near[self.most :], strict=False))


@dataclass(frozen=True, slots=True)
class Schedule:
    """What becomes of a mail that was asked for; the reason only where it is discarded."""

    due_at: datetime
    state: State
    reason: str | None = None


def place(
    asked: RequestedMail, known: Sequence[KnownMail], limits: MailLimits, *, not_before: datetime | None = None
) -> Schedule:
    """Return when the mail is due: as early as the mailbox's limits allow, or as the mail of its day beyond them.

    Of one address one mail waits. A clock that was set back leaves mails in the future: those further away than
    anything could wait are not counted, so that nobody waits for them.

    Args:
        asked: what is asked for.
        known: the mailbox's mails that were not discarded.
        limits: how many may be due in a time.
        not_before: when another limit has room again.

    """
    horizon = timedelta(days=limits.days)
    earliest = max(asked.wanted, not_before or asked.wanted)
    mails = [mail for mail in known if abs(mail.due_at - asked.now) <= horizon]
    moments = list(_moments(earliest, asked.now + horizon, mails, horizon))
    windows = _windows(asked, mails, limits)
    fits = next((moment for moment in moments if all(window.has_room(moment) for window in windows)), None)
    of_day = next((moment for moment in moments if _fits_day(moment, asked, mails, windows[0])), None)
    if fits == asked.wanted:
        return Schedule(fits, "prompt")
    if any(mail.address == asked.address and _waits(mail, asked.now) for mail in mails):
        return Schedule(asked.now, "discarded", ONE_WAITS)
    if fits is not None and (of_day is None or fits <= of_day):
        return Schedule(fits, "waiting")
    if of_day is not None:
        return Schedule(of_day, "daily")
    return Schedule(asked.now, "discarded", NO_ROOM)


def _moments(
    earliest: datetime, latest: datetime, mails: Sequence[KnownMail], horizon: timedelta
) -> Iterator[datetime]:
    """Give each moment at which it may begin to fit, in order: a limit has room again as a mail leaves its window."""
    yield earliest
    ends = {mail.due_at + span for mail in mails for span in (_HOUR, _DAY, 2 * _DAY, horizon)}
    yield from sorted(end for end in ends if earliest < end <= latest)


def _windows(asked: RequestedMail, mails: Sequence[KnownMail], limits: MailLimits) -> list[_Window]:
    """Return what the mail has to fit in."""
    horizon = timedelta(days=limits.days)
    own = [mail for mail in mails if mail.client == asked.client]
    return [
        _window(mails, _HOUR, limits.mailbox_an_hour),
        _window(own, _HOUR, limits.client_an_hour),
        # Beyond the limits is beyond them: the mail of a day takes no room from the others.
        _window([mail for mail in mails if mail.state != "daily"], horizon, limits.mailbox),
        _window([mail for mail in own if mail.state != "daily"], horizon, limits.client),
    ]


def _window(mails: Sequence[KnownMail], span: timedelta, most: int | None) -> _Window:
    return _Window(sorted(mail.due_at for mail in mails), span, most)


def _fits_day(moment: datetime, asked: RequestedMail, mails: Sequence[KnownMail], hour: _Window) -> bool:
    """Tell whether it may be the mail of a day: no other one within a day, nor any mail in the day before it.

    Where addresses with tags queue up for it, each second day stays free for the mailbox's own address. So whoever has
    that one gets a mail within two days, whatever strangers ask for.
    """
    if not hour.has_room(moment):
        return False
    for mail in mails:
        is_coming = mail.due_at > asked.now
        if mail.state == "daily":
            if abs(moment - mail.due_at) < (_DAY if asked.is_plain or not is_coming else 2 * _DAY):
                return False
        elif not is_coming and moment - mail.due_at < _DAY:
            return False
    return True


def _waits(mail: KnownMail, now: datetime) -> bool:
    return mail.state in {"waiting", "daily"} and mail.due_at > now
