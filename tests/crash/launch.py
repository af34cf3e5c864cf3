"""Start the real relay or the real `rq worker critical default` and kill it at a crash point.

    python -m tests.crash.launch [OPTIONS] relay|worker [the program's own arguments]

Functions are wrapped from outside before the program's own entry point is called. What kills it is a real SIGKILL. The
relay gets a Pacing that waits less than in production.
"""

import dataclasses
import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from outbox_relay.__main__ import main as relay
from outbox_relay.loop.pacing import Pacing
from tests.crash.points import POINTS, Point

NO_WAITING: Final = Pacing(pop_to_claim_seconds=0.5, postmaster_grace_seconds=0.0, reconnect_grace_seconds=0.0)
"""As if PostgreSQL had been running for long, and no pop could be followed late by its claim."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--die", "point", type=click.Choice(list(POINTS)), help="Die at this moment, once.")
@click.option("--note", type=click.Path(path_type=Path), help="The file that says that the moment was reached.")
@click.argument("program", type=click.Choice(["relay", "worker"]))
@click.argument("arguments", nargs=-1)
def main(
    point: str | None,
    note: Path | None,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    if point is not None:
        if note is None:
            raise click.UsageError("--die needs --note")
        _arrange_death(POINTS[point], note)
    if program == "relay":
        relay.main(arguments, prog_name="outbox_relay", obj=NO_WAITING)
    else:
        rq = importlib.import_module("rq.cli")
        sys.argv = ["rq", "worker", "critical", "default", *arguments]
        rq.main(prog_name="rq")


def _arrange_death(point: Point, note: Path) -> None:
    """Wrap the point's function, and the one that has to come before it."""
    past: list[bool] = []
    if point.past is not None:
        _wrap(point.past, lambda function: _calling(function, after=lambda _args, _result: past.append(True)))

    def die_if_this_is_it(args: tuple[Any, ...], result: object) -> None:
        if (past or point.past is None) and point.that(args, result) and _is_first_time(note):
            _die(with_parent=point.whose == "horse and parent")

    if point.when == "before":
        _wrap(
            point.function,
            lambda function: _calling(function, before=lambda args: die_if_this_is_it(args, None)),
        )
    else:
        _wrap(point.function, lambda function: _calling(function, after=die_if_this_is_it))


def _calling(
    function: Callable[..., Any],
    before: Callable[[tuple[Any, ...]], object] = lambda _args: None,
    after: Callable[[tuple[Any, ...], object], object] = lambda _args, _result: None,
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before(args)
        result = function(*args, **kwargs)
        after(args, result)
        return result

    return wrapped


def _wrap(name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, attribute = _find(name)
    plain = inspect.getattr_static(owner, attribute) if isinstance(owner, type) else getattr(owner, attribute)
    if isinstance(plain, classmethod | staticmethod):
        setattr(owner, attribute, type(plain)(wrapper(plain.__func__)))
    elif dataclasses.is_dataclass(owner) and not isinstance(owner, type):
        object.__setattr__(owner, attribute, wrapper(plain))  # a task is frozen
    else:
        setattr(owner, attribute, wrapper(plain))


def _find(name: str) -> tuple[Any, str]:
    """Return the object that holds what `module:a.b.c` names, and the last name."""
    module, _, path = name.partition(":")
    *parents, attribute = path.split(".")
    return functools.reduce(_part, parents, importlib.import_module(module)), attribute


def _part(owner: Any, name: str) -> Any:
    return owner[int(name)] if name.isdecimal() else getattr(owner, name)


def _is_first_time(note: Path) -> bool:
    """Write the note and return True, unless a process has died here before."""
    try:
        with note.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def _die(*, with_parent: bool) -> NoReturn:
    if with_parent:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


if __name__ == "__main__":
    main()
