"""Carry out the console's forms, each once, however often its button is pressed."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from flask import g, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from api.database.engine import LOCK_SECONDS
from api.http.problems import ProblemError
from api.ops.access import PATH
from api.ops.sessions import is_last_form, keep_form, take_form
from shared.database.connections import DbConnection, transaction
from shared.outbox.destinations import control
from shared.outbox.destinations.control import LARGEST_IN_FLIGHT, LARGEST_RATE, SMALLEST_RATE
from shared.outbox.messages import DESTINATION_FORM
from shared.outbox.operations import dead_letters
from shared.outbox.operations.failure_groups import group_key
from shared.outbox.operations.stats import COUNTED_EXACTLY

_log = structlog.get_logger(__name__)


def reason() -> str:
    """Return the reason that the form gives. Raises ProblemError without one."""
    given = request.form.get("reason", "").strip()
    if not given or not given.isprintable():
        raise ProblemError(422, "Enter a reason: a few words on one line.")
    return given


def pause_reason() -> str:
    """Return the reason of a pause. Raises ProblemError without one, or for one that `resume` would not end."""
    given = reason()
    if given.startswith(control.DISABLED):
        raise ProblemError(422, "Begin the reason with another word: “disabled: ” is for webhook endpoints.")
    return given


def limits() -> tuple[float | None, int | None]:
    """Return the limits that the form gives, each None if its field is empty."""
    per_second, in_flight = (request.form.get(name, "").strip() for name in ("per_second", "in_flight"))
    try:
        rate = float(per_second) if per_second else None
        places = int(in_flight) if in_flight else None
    except ValueError:
        raise ProblemError(422, "Enter the limits as numbers, or leave a field empty for no limit.") from None
    if rate is not None and not SMALLEST_RATE <= rate <= LARGEST_RATE:
        raise ProblemError(
            422, f"A limit is from {SMALLEST_RATE:g} to {LARGEST_RATE:.0f} a second. A pause stops a destination."
        )
    if places is not None and not 1 <= places <= LARGEST_IN_FLIGHT:
        raise ProblemError(422, f"From 1 to {LARGEST_IN_FLIGHT} messages may be in hand at a time.")
    return rate, places


def resume(connection: DbConnection, name: str) -> None:
    """End a pause. Raises ProblemError if the destination is disabled."""
    if control.resume(connection, name) is control.Resumed.DISABLED:
        raise ProblemError(409, "This endpoint is disabled, not paused: python -m outbox_relay webhooks enable.")


def decide(event: str, message_id: int, act: Callable[[DbConnection, int], bool]) -> AnyResponse:
    """Retry or discard a dead letter, once per shown form, however often it is sent."""
    form = _form(event, message_id)
    with _writing() as connection:
        is_done = act(connection, message_id)
        if is_done:
            keep_form(connection, g.session_id, form)
        elif not is_last_form(connection, g.session_id, form):
            raise ProblemError(
                409, "This message is no longer a dead letter: someone else has retried or discarded it."
            )
    if is_done:
        _log.info(event, message_id=message_id, session_id=g.session_id)
    return redirect(PATH, 303)


def decide_group(
    group_event: str, group_id: str, act: Callable[[DbConnection, dead_letters.Selection], Iterator[int]]
) -> AnyResponse:
    """Retry or discard the dead letters of a group in steps, once per shown form, at most COUNTED_EXACTLY of them."""
    key = group_key(group_id)
    if key is None:
        raise ProblemError(404, "There is no group with this id.")
    with _writing() as connection:
        if not take_form(connection, g.session_id, _form(group_event, group_id)):
            return redirect(PATH, 303)
        steps = act(connection, dead_letters.select_dead(connection, key))
        # The first step is in the form's transaction: the form is carried out, or it is not.
        changed = next(steps, 0)
        if not changed:
            raise ProblemError(409, "This group has no dead letters left: someone else has retried or discarded them.")
    for step in steps:
        changed += step
        if changed >= COUNTED_EXACTLY:
            break
    _log.info(group_event, group=group_id, messages=changed, session_id=g.session_id)
    return redirect(PATH, 303)


def decide_destination(destination_event: str, name: str, act: Callable[[DbConnection, str], None]) -> AnyResponse:
    """Pause, resume or limit a destination, once per shown form."""
    if not DESTINATION_FORM.fullmatch(name):
        raise ProblemError(404, "There is no destination with this name.")
    with _writing() as connection:
        if not take_form(connection, g.session_id, _form(destination_event, name)):
            return redirect(PATH, 303)
        act(connection, name)
    _log.info(destination_event, destination=name, session_id=g.session_id)
    return redirect(PATH, 303)


def _form(event: str, what: object) -> str:
    """Return a name for the form that was sent, by which a second press of its button is recognised."""
    sent = f"{event} {what} {request.form.get('form_id', '')}"
    return hashlib.sha256(sent.encode("utf-8", "replace")).hexdigest()


@contextmanager
def _writing() -> Iterator[DbConnection]:
    with transaction(g.connection, lock_seconds=LOCK_SECONDS):
        yield g.connection
