"""Causes the two kinds of job loss of RQ's stock worker again and again, and counts the messages."""

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.crash.points import POP_TO_START, Point
from tests.crash.scene import NOTE, Scene

SETTINGS: Final = {"OUTBOX_RUN_LEASE_SECONDS": "30"}
"""No work horse dies while it sends a mail here, so no lease needs to end. A long one outlasts a slow machine."""

AT_ONCE: Final = 2
TIMEOUT_SECONDS: Final = 60.0

_BACKLOG: Final = 20
_LONGEST_WORK_SECONDS: Final = 0.5
_CHECK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Tally:
    """The counts.

    Attributes:
        signals: how many processes got a signal.
        messages: how many messages were committed.
        mailed: how many of them arrived and are done.
        copies: how many superfluous mails arrived.
        returned: how many jobs RQ lost and the relay returned.

    """

    signals: int
    messages: int
    mailed: int
    copies: int
    returned: int

    @property
    def lost(self) -> int:
        return self.messages - self.mailed


def kill_between_pop_and_start(scene: Scene, kills: int, random: Random) -> Tally:
    """Kill one worker after the other between its pop and the start of its work."""
    scene.start_relay()
    ids = scene.sign_up(kills)
    points = [random.choice(POP_TO_START) for _ in range(kills)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda victim: _let_die(scene, *victim), enumerate(points)))
        _finish(scene)
    return _count(scene, kills, ids)


def _let_die(scene: Scene, number: int, point: Point) -> None:
    note = scene.folder / f"{NOTE}-{number}"
    victim = scene.start(f"victim-{number}", "worker", "--die", point.key, "--note", str(note))
    assert (victim.wait(TIMEOUT_SECONDS), note.exists()) == (-signal.SIGKILL, True)


def terminate_under_load(scene: Scene, terms: int, random: Random) -> Tally:
    """Stop one worker after the other, each after a random time.

    Messages keep coming until the last one has stopped: a signal between Python's check of its signals and the system
    call of RQ's pop is handled when the pop ends, and without a job that is after minutes.
    """
    scene.start_relay()
    ids = scene.sign_up(_BACKLOG)
    moments = [random.uniform(0, _LONGEST_WORK_SECONDS) for _ in range(terms)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        stops = [pool.submit(_let_stop, scene, *victim) for victim in enumerate(moments)]
        while wait(stops, timeout=_CHECK_SECONDS).not_done:
            ids += scene.sign_up(max(0, _BACKLOG - scene.count()))
        for stop in stops:
            stop.result()
        _finish(scene)
    return _count(scene, terms, ids)


def _let_stop(scene: Scene, number: int, seconds: float) -> None:
    victim = scene.start(f"victim-{number}", "worker")
    victim.wait_ready(lambda: "Listening on" in scene.log(victim), TIMEOUT_SECONDS)
    time.sleep(seconds)
    assert victim.stop(TIMEOUT_SECONDS) == 0


def _finish(scene: Scene) -> None:
    for number in range(AT_ONCE):
        scene.start(f"worker-{number}", "worker")
    with contextlib.suppress(AssertionError):  # a message that has not arrived by then counts as lost
        scene.wait_for_quiet(TIMEOUT_SECONDS + scene.count())


def _count(scene: Scene, signals: int, ids: list[int]) -> Tally:
    copies = scene.copies(ids)
    done = {id_ for (id_,) in scene.connection.execute("SELECT id FROM outbox_finished WHERE status = 'done'")}
    [returned] = scene.connection.execute("SELECT sum(generation)::integer FROM outbox_messages").fetchone() or (0,)
    return Tally(
        signals=signals,
        messages=len(ids),
        mailed=sum(id_ in done and number > 0 for id_, number in copies.items()),
        copies=sum(number - 1 for number in copies.values() if number),
        returned=returned,
    )
