"""The rules of when a mailbox gets one more mail, for any requests in any order."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.accounts.mail_limits.scheduling import NO_ROOM, ONE_WAITS, KnownMail, RequestedMail, Schedule, State, schedule
from shared.settings.mail_limits import MailLimits

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OWN = b"the mailbox's own address"


class Mailbox:
    """Requests mails one by one, and keeps the decisions."""

    def __init__(self, limits: MailLimits | None = None) -> None:
        self.limits = limits or MailLimits()
        self.now = NOW
        self.known: list[KnownMail] = []

    def ask(
        self, address: bytes = OWN, client: bytes | None = b"client", *, delay: timedelta = timedelta(0)
    ) -> Schedule:
        asked = RequestedMail(self.now, self.now + delay, address, client, is_plain=address == OWN)
        scheduled = schedule(asked, self.known, self.limits)
        if scheduled.state != "discarded":
            self.known.append(KnownMail(scheduled.due_at, address, client, scheduled.state))
        return scheduled

    def tags(self, number: int, client: bytes | None = b"client") -> list[Schedule]:
        """Request a mail to each of several different addresses of the mailbox."""
        return [self.ask(b"tag %d %d" % (len(self.known), each), client) for each in range(number)]

    def due(self, states: Iterable[State] = ("prompt", "waiting", "daily")) -> list[datetime]:
        return sorted(mail.due_at for mail in self.known if mail.state in states)


def test_one_client_has_three_mails_an_hour_and_five_in_the_days() -> None:
    mailbox = Mailbox()

    scheduled = mailbox.tags(6)

    assert [each.due_at - NOW for each in scheduled[:5]] == [0 * HOUR] * 3 + [HOUR] * 2
    assert [each.state for each in scheduled] == ["prompt"] * 3 + ["waiting"] * 2 + ["daily"]


def test_a_mailbox_has_five_mails_an_hour_and_ten_in_the_days() -> None:
    mailbox = Mailbox()

    scheduled = [mailbox.tags(1, b"client %d" % number)[0] for number in range(11)]

    assert [each.due_at - NOW for each in scheduled] == [0 * HOUR] * 5 + [HOUR] * 5 + [DAY]
    assert [each.state for each in scheduled] == ["prompt"] * 5 + ["waiting"] * 5 + ["daily"]


def test_unknown_clients_share_the_limits_of_one_client() -> None:
    assert [each.state for each in Mailbox().tags(4, None)] == ["prompt"] * 3 + ["waiting"]


def test_of_one_address_one_mail_waits() -> None:
    mailbox = Mailbox()

    scheduled = [mailbox.ask() for _ in range(6)]

    assert [each.state for each in scheduled] == ["prompt"] * 3 + ["waiting"] + ["discarded"] * 2
    assert scheduled[-1] == Schedule(NOW, "discarded", ONE_WAITS)


def test_what_fits_is_not_discarded_because_another_one_waits() -> None:
    mailbox = Mailbox()
    stranger = [mailbox.ask(client=b"stranger") for _ in range(4)][-1]

    assert stranger.state == "waiting"
    assert mailbox.ask(client=b"owner") == Schedule(NOW, "prompt")


def test_beyond_all_limits_a_mailbox_gets_one_mail_a_day() -> None:
    mailbox = Mailbox()
    for number in range(10):
        mailbox.tags(1, b"client %d" % number)
    states = []
    for _ in range(5):
        mailbox.now += DAY + 2 * HOUR
        states += [each.state for each in mailbox.tags(1)]

    assert states == ["daily"] * 5
    assert all(next_ - one >= DAY for one, next_ in pairwise(mailbox.due(["daily"])))


def test_the_owner_gets_a_mail_within_two_days_however_many_of_strangers_wait() -> None:
    mailbox = Mailbox()
    for number in range(200):
        mailbox.tags(1, b"stranger %d" % number)

    scheduled = mailbox.ask(OWN, b"owner")

    assert (scheduled.state, scheduled.due_at - NOW) == ("daily", 2 * DAY)


def test_what_finds_no_room_in_the_days_is_discarded() -> None:
    mailbox = Mailbox()

    scheduled = mailbox.tags(200)

    assert scheduled[-1] == Schedule(NOW, "discarded", NO_ROOM)
    assert max(mailbox.due()) <= NOW + 7 * DAY


def test_a_limit_that_is_off_holds_nothing_back() -> None:
    mailbox = Mailbox(MailLimits(mailbox_an_hour=None, mailbox=None, client_an_hour=None, client=None))

    assert {each.state for each in mailbox.tags(50)} == {"prompt"}


def test_a_delay_that_was_asked_for_is_no_waiting() -> None:
    assert Mailbox().ask(delay=10 * DAY) == Schedule(NOW + 10 * DAY, "prompt")


def test_another_limit_makes_a_mail_wait() -> None:
    asked = RequestedMail(NOW, NOW, OWN, None, is_plain=True)

    assert schedule(asked, [], MailLimits(), not_before=NOW + HOUR) == Schedule(NOW + HOUR, "waiting")


def test_a_decision_among_as_many_mails_as_are_read_takes_no_seconds() -> None:
    """The mailbox is locked meanwhile. Measured in CPU time, which other programs do not lengthen."""
    known = [KnownMail(NOW - minute * timedelta(minutes=1), b"tag", b"client", "prompt") for minute in range(1, 2001)]
    asked = RequestedMail(NOW, NOW, OWN, b"client", is_plain=True)
    begin = time.thread_time()

    scheduled = schedule(asked, known, MailLimits(mailbox=1000, client=1000))

    assert scheduled.state == "daily"
    assert time.thread_time() - begin < 2


@pytest.mark.parametrize("jump", [-400 * DAY, -3 * DAY, -2 * HOUR, 400 * DAY])
def test_a_clock_that_jumps_locks_no_client_out(jump: timedelta) -> None:
    mailbox = Mailbox()
    for number in range(30):
        mailbox.tags(1, b"client %d" % number)
    mailbox.now += jump

    scheduled = mailbox.ask(OWN, b"owner")

    assert scheduled.state != "discarded"
    assert scheduled.due_at - mailbox.now <= 12 * DAY


Step = tuple[timedelta, bytes, bytes | None]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([timedelta(0), timedelta(minutes=1), timedelta(minutes=59), HOUR, 5 * HOUR, DAY, 3 * DAY]),
        st.sampled_from([OWN, *(b"tag %d" % number for number in range(12))]),
        st.sampled_from([None, *(b"client %d" % number for number in range(5))]),
    ),
    max_size=80,
)
LIMITS = st.builds(
    MailLimits,
    mailbox_an_hour=st.integers(1, 6),
    mailbox=st.integers(1, 12),
    client_an_hour=st.integers(1, 6),
    client=st.integers(1, 12),
    days=st.sampled_from([1.0, 2.5, 7.0]),
)


@settings(max_examples=150, deadline=None)
@given(STEPS, LIMITS)
def test_no_window_ever_has_more_mails_than_allowed(steps: Sequence[Step], limits: MailLimits) -> None:
    mailbox = Mailbox(limits)
    for pause, address, client in steps:
        mailbox.now += pause
        scheduled = mailbox.ask(address, client)
        waiting = [mail.address for mail in mailbox.known if mail.state != "prompt" and mail.due_at > mailbox.now]
        assert len(waiting) == len(set(waiting))
        assert scheduled.due_at >= mailbox.now
        assert (scheduled.state == "prompt") <= (scheduled.due_at == mailbox.now)
        assert (scheduled.state == "discarded") == (scheduled.reason is not None)

    days = timedelta(days=limits.days)
    assert most_within(mailbox.due(), HOUR) <= (limits.mailbox_an_hour or 0)
    assert most_within(mailbox.due(["prompt", "waiting"]), days) <= (limits.mailbox or 0)
    assert most_within(mailbox.due(["daily"]), DAY) <= 1
    for client in {mail.client for mail in mailbox.known}:
        own = sorted(mail.due_at for mail in mailbox.known if mail.client == client and mail.state != "daily")
        assert most_within(own, HOUR) <= (limits.client_an_hour or 0)
        assert most_within(own, days) <= (limits.client or 0)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_the_own_address_always_gets_a_mail_within_days(steps: Sequence[Step]) -> None:
    mailbox = Mailbox()
    for pause, address, client in steps:
        mailbox.now += pause
        mailbox.ask(address, client)

    scheduled = mailbox.ask(OWN, b"owner")

    until = (
        scheduled.due_at
        if scheduled.reason is None
        else min(mail.due_at for mail in mailbox.known if mail.address == OWN and mail.due_at > mailbox.now)
    )
    assert scheduled.reason in {None, ONE_WAITS}
    assert until - mailbox.now <= 2 * DAY + HOUR


def most_within(moments: Sequence[datetime], span: timedelta) -> int:
    """Return the number of mails in the fullest window."""
    return max((sum(first <= each < first + span for each in moments) for first in moments), default=0)
