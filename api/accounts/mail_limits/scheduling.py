"""Schedule one more verification mail to a mailbox, from its earlier and waiting mails.

Pure functions: no clock and no database.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from shared.settings.mail_limits import MailLimits

State = Literal["prompt", "waiting", "daily", "discarded"]
"""The state of a mail: not delayed; due when the limits allow it; the one mail that a mailbox gets each day beyond its
limits; discarded."""

ONE_WAITS: Final = "a mail to this address already waits for a limit, and its link works for each of its accounts"
NO_ROOM: Final = "too many mails to this mailbox already wait for a limit"

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class KnownMail:
    """A mail that the mailbox got or will get.

    Attributes:
        due_at: when it was or is due.
        address: the HMAC of the exact address.
        client: the HMAC of the requesting client's network; None for all unknown clients.
        state: what was decided about it.

    """

    due_at: datetime
    address: bytes
    client: bytes | None
    state: State


@dataclass(frozen=True, slots=True)
class RequestedMail:
    """A mail to schedule.

    Attributes:
        now, wanted: the present, and when it would be due without limits.
        address, client: as in a KnownMail.
        is_plain: its address is the mailbox's own, without a tag.

    """

    now: datetime
    wanted: datetime
    address: bytes
    client: bytes | None
    is_plain: bool


@dataclass(frozen=True, slots=True)
class _Window:
    """A limit of mails in any period of this length; None for no limit."""

    moments: Sequence[datetime]
    span: timedelta
    most: int | None

    def has_room(self, moment: datetime) -> bool:
        """Return whether a mail at this moment keeps every such period within the limit."""
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
    """When a mail is due. The reason is set only where it is discarded."""

    due_at: datetime
    state: State
    reason: str | None = None


def schedule(
    requested: RequestedMail, known: Sequence[KnownMail], limits: MailLimits, *, not_before: datetime | None = None
) -> Schedule:
    """Return when the mail is due: as early as the mailbox's limits allow, or as its daily mail beyond them.

    Only one mail per address waits. If the clock was set back, mails further in the future than any wait could be are
    ignored.

    Args:
        requested: the mail.
        known: the mailbox's mails, without discarded ones.
        limits: how many mails may be due in a period.
        not_before: when another limit allows the mail.

    """
    horizon = timedelta(days=limits.days)
    earliest = max(requested.wanted, not_before or requested.wanted)
    mails = [mail for mail in known if abs(mail.due_at - requested.now) <= horizon]
    moments = list(_moments(earliest, requested.now + horizon, mails, horizon))
    windows = _windows(requested, mails, limits)
    fits = next((moment for moment in moments if all(window.has_room(moment) for window in windows)), None)
    of_day = next((moment for moment in moments if _fits_day(moment, requested, mails, windows[0])), None)
    if fits == requested.wanted:
        return Schedule(fits, "prompt")
    if any(mail.address == requested.address and _waits(mail, requested.now) for mail in mails):
        return Schedule(requested.now, "discarded", ONE_WAITS)
    if fits is not None and (of_day is None or fits <= of_day):
        return Schedule(fits, "waiting")
    if of_day is not None:
        return Schedule(of_day, "daily")
    return Schedule(requested.now, "discarded", NO_ROOM)


def _moments(
    earliest: datetime, latest: datetime, mails: Sequence[KnownMail], horizon: timedelta
) -> Iterator[datetime]:
    """Yield the moments at which it may begin to fit, in order: when a mail leaves a limit's window."""
    yield earliest
    ends = {mail.due_at + span for mail in mails for span in (_HOUR, _DAY, 2 * _DAY, horizon)}
    yield from sorted(end for end in ends if earliest < end <= latest)


def _windows(requested: RequestedMail, mails: Sequence[KnownMail], limits: MailLimits) -> list[_Window]:
    """Return the limits' windows."""
    horizon = timedelta(days=limits.days)
    own = [mail for mail in mails if mail.client == requested.client]
    return [
        _window(mails, _HOUR, limits.mailbox_an_hour),
        _window(own, _HOUR, limits.client_an_hour),
        # A daily mail is beyond the limits, so it does not count in them.
        _window([mail for mail in mails if mail.state != "daily"], horizon, limits.mailbox),
        _window([mail for mail in own if mail.state != "daily"], horizon, limits.client),
    ]


def _window(mails: Sequence[KnownMail], span: timedelta, most: int | None) -> _Window:
    return _Window(sorted(mail.due_at for mail in mails), span, most)


def _fits_day(moment: datetime, requested: RequestedMail, mails: Sequence[KnownMail], hour: _Window) -> bool:
    """Return whether it may be a daily mail: no other one within a day, and no mail at all in the day before.

    If tagged addresses queue for it, every second day is reserved for the mailbox's own address. So its owner gets a
    mail within two days, whatever other people request.
    """
    if not hour.has_room(moment):
        return False
    for mail in mails:
        is_coming = mail.due_at > requested.now
        if mail.state == "daily":
            if abs(moment - mail.due_at) < (_DAY if requested.is_plain or not is_coming else 2 * _DAY):
                return False
        elif not is_coming and moment - mail.due_at < _DAY:
            return False
    return True


def _waits(mail: KnownMail, now: datetime) -> bool:
    return mail.state in {"waiting", "daily"} and mail.due_at > now
