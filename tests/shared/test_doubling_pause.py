"""Pauses that double."""

from shared.doubling_pause import DoublingPause


def test_each_pause_is_longer_than_the_last_up_to_the_longest() -> None:
    pause = DoublingPause(0.5, 8)

    pauses = [pause.next() for _ in range(10)]

    assert pauses[0] == 0.5
    assert pauses == sorted(pauses)
    assert pauses[-2:] == [8, 8]


def test_after_a_reset_the_first_pause_comes_again() -> None:
    pause = DoublingPause(0.5, 8)
    first, _ = pause.next(), pause.next()

    pause.reset()

    assert pause.next() == first
