"""Slow destinations and probes hold half of a worker's places at most, and mail always has one."""

from dataclasses import dataclass, field

from consumer.threaded.place_limits import RECENT_SECONDS, SLOW_SECONDS, NoTurn, PlaceLimits, Turn
from shared.outbox.messages import MAIL

PLACES = 10


@dataclass
class Worker:
    """The places of a worker, and its clock."""

    now: float = 100.0
    limits: PlaceLimits = field(init=False)

    def __post_init__(self) -> None:
        self.limits = PlaceLimits(PLACES, lambda: self.now)

    def begin(self, name: str, *, is_probe: bool = False, waited: float = 0.0) -> Turn | NoTurn:
        return self.limits.begin(name, is_probe=is_probe, waited_seconds=waited)

    def held(self, name: str, *, is_probe: bool = False) -> list[Turn]:
        """Begin as many as may begin, up to all places and more."""
        turns = [self.begin(name, is_probe=is_probe) for _ in range(PLACES * 2)]
        return [each for each in turns if isinstance(each, Turn)]

    def send(self, name: str, seconds: float, *, has_contacted: bool = True) -> bool:
        turn = self.begin(name)
        assert isinstance(turn, Turn)
        self.now += seconds
        return self.limits.end(turn, has_contacted=has_contacted)


def test_a_destination_that_answered_within_a_second_may_have_all_places() -> None:
    worker = Worker()
    assert worker.send("a", SLOW_SECONDS) is False

    assert len(worker.held("a")) == PLACES * 2


def test_a_destination_of_which_nothing_is_known_waits_with_half_of_the_places() -> None:
    worker = Worker()

    turns = worker.held("a")

    assert len(turns) == PLACES // 2
    assert worker.begin("a") is NoTurn.WAIT
    assert worker.begin("a", waited=SLOW_SECONDS + 0.1) is NoTurn.REFUSED
    worker.limits.end(turns[0], has_contacted=True)
    assert isinstance(worker.begin("a"), Turn)


def test_a_slow_destination_holds_half_of_the_places_until_its_next_send_is_fast() -> None:
    worker = Worker()
    worker.send("fast", 0.1)
    assert worker.send("slow", 9) is True

    turns = worker.held("slow")
    refused = worker.begin("slow")
    others = worker.held("fast")
    worker.limits.end(turns[0], has_contacted=True)

    assert (len(turns), refused, len(others)) == (PLACES // 2, NoTurn.REFUSED, PLACES * 2)
    assert len(worker.held("slow")) == PLACES * 2


def test_a_send_that_runs_for_longer_than_a_second_makes_its_destination_slow() -> None:
    worker = Worker()
    worker.send("a", 0.1)
    turns = [worker.begin("a") for _ in range(PLACES // 2)]
    worker.now += SLOW_SECONDS + 0.1

    assert worker.begin("a") is NoTurn.REFUSED
    for turn in turns:
        assert isinstance(turn, Turn)
        assert worker.limits.end(turn, has_contacted=True)


def test_what_did_not_contact_a_destination_says_nothing_about_it() -> None:
    worker = Worker()

    worker.send("a", 0.01, has_contacted=False)

    assert len(worker.held("a")) == PLACES // 2


def test_several_slow_destinations_share_the_slow_half() -> None:
    worker = Worker()
    for name in "ab":
        worker.send(name, 9)
    worker.begin("b")
    first = len(worker.held("a"))

    assert (first, len(worker.held("b"))) == (2, 1)
    worker.send("fast", 0.1)
    assert isinstance(worker.begin("fast"), Turn)


def test_a_slow_destination_that_is_gone_gives_its_part_to_the_others() -> None:
    worker = Worker()
    for name in "ab":
        worker.send(name, 9)
    worker.begin("b", is_probe=True)
    worker.now += RECENT_SECONDS + 1

    assert len(worker.held("a")) == PLACES // 2 - 1


def test_the_probes_of_a_hundred_dead_endpoints_leave_half_of_the_places() -> None:
    worker = Worker()
    worker.send(MAIL, 0.1)

    begun = [turn for n in range(100) if isinstance(turn := worker.begin(f"webhook:{n}", is_probe=True), Turn)]

    assert len(begun) == PLACES // 2
    assert worker.begin("webhook:100", is_probe=True) is NoTurn.REFUSED
    assert len(worker.held(MAIL)) == PLACES * 2


def test_slow_destinations_do_not_delay_one_of_which_nothing_is_known() -> None:
    worker = Worker()
    worker.send("slow", 9)
    worker.held("slow")

    first = worker.begin("new")
    worker.now += 0.1

    assert isinstance(first, Turn)
    assert worker.begin("new") is NoTurn.WAIT
    worker.limits.end(first, has_contacted=True)
    assert len(worker.held("new")) == PLACES * 2


def test_first_sends_leave_places_to_those_that_are_known_to_be_fast() -> None:
    worker = Worker()
    worker.send("slow", 9)
    worker.held("slow")

    begun = [turn for n in range(100) if isinstance(turn := worker.begin(f"webhook:{n}"), Turn)]

    assert len(begun) == PLACES // 4


def test_mail_has_a_place_even_if_slow_destinations_have_all_of_theirs() -> None:
    worker = Worker()
    worker.send("slow", 9)
    worker.held("slow")

    assert [type(worker.begin(MAIL)) for _ in range(2)] == [Turn, NoTurn]


def test_a_worker_with_one_place_gives_it_to_anyone() -> None:
    limits = PlaceLimits(1)
    turn = limits.begin("a")
    assert isinstance(turn, Turn)
    limits.end(turn, has_contacted=True)

    assert isinstance(limits.begin("b"), Turn)
