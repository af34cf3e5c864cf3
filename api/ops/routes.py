"""Routes of the console: its pages and forms."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Final, ParamSpec

import structlog
from flask import Blueprint, Response, g, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.database.engine import LOCK_SECONDS
from api.database.side_connections import SideConnections
from api.http.problems import ProblemError, respond
from api.ops.access import PATH, Access
from api.ops.forms import decide, decide_destination, decide_group, limits, pause_reason, reason, resume
from api.ops.plot import HEIGHT, WIDTH, draw
from api.ops.sessions import Session, end_session, find_session, open_session
from api.ops.snapshot import read_snapshot
from shared.database.connections import DbConnection, transaction
from shared.database.read_transaction import read_transaction
from shared.outbox.columns import LARGEST_ID
from shared.outbox.destinations import control
from shared.outbox.operations import dead_letters
from shared.outbox.operations.destination_stats import OTHER, read_destination_stats
from shared.outbox.operations.failure_groups import list_groups
from shared.outbox.operations.history import read_message
from shared.outbox.operations.stats import read_live_states

_DEAD_LETTERS_SHOWN: Final = 50
_GROUPS_SHOWN: Final = 20
_MOMENTS: Final = ("created_at", "due_at", "published_at", "claimed_at", "lease_until", "finished_at")

_Arguments = ParamSpec("_Arguments")
_log = structlog.get_logger(__name__)


def ops_blueprint(connections: SideConnections, token: str) -> Blueprint:
    """Build the console."""
    blueprint = Blueprint("ops", __name__, url_prefix=PATH)
    console = _Console(connections, Access(token))
    blueprint.post("/login")(console.login)
    blueprint.post("/logout")(console.guarded(console.logout))
    blueprint.get("")(console.guarded(console.show))
    blueprint.get("/snapshot")(console.guarded(console.snapshot))
    blueprint.get("/dead-letters")(console.guarded(console.dead_letters))
    blueprint.get("/message")(console.guarded(console.message))
    blueprint.get("/failure-groups")(console.guarded(console.failure_groups))
    blueprint.post("/failure-groups/<group_id>/retry")(console.guarded(console.retry_group))
    blueprint.post("/failure-groups/<group_id>/discard")(console.guarded(console.discard_group))
    blueprint.get("/destinations")(console.guarded(console.destinations))
    for action in (console.pause, console.resume, console.limit):
        blueprint.post(f"/destinations/<name>/{action.__name__}")(console.guarded(action))
    blueprint.post("/dead-letters/<int:message_id>/retry")(console.guarded(console.retry))
    blueprint.post("/dead-letters/<int:message_id>/discard")(console.guarded(console.discard))
    blueprint.register_error_handler(ProblemError, _show_problem)
    return blueprint


class _Console:
    """The views. All but the login require a session."""

    def __init__(self, connections: SideConnections, access: Access) -> None:
        self._connections = connections
        self._access = access

    def guarded(self, view: Callable[_Arguments, AnyResponse]) -> Callable[_Arguments, AnyResponse]:
        """Show the login page unless there is a session, and refuse forms that are not this session's."""

        @wraps(view)
        def guarded_view(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> AnyResponse:
            with self._session() as session:
                if session is None:
                    return _page("ops/login.html", 401, problem=None)
                if request.method == "POST" and not self._access.is_own_form(request, session):
                    raise ProblemError(403, "This form belongs to another session. Reload the console and try again.")
                g.session_id = session.id
                g.form_key = self._access.form_key(session)
                return view(*args, **kwargs)

        return guarded_view

    @contextmanager
    def _session(self) -> Iterator[Session | None]:
        """Yield the request's session, and keep the connection for the view."""
        secret = self._access.secret_of(request)
        if secret is None:
            yield None
            return
        with self._connections.borrow() as connection:
            with read_transaction(connection):
                session_id = find_session(connection, self._access.secret_hmac(secret))
            g.connection = connection
            yield None if session_id is None else Session(session_id, secret)

    def login(self) -> AnyResponse:
        if not self._access.is_token(request.form.get("token", "")):
            _log.warning("ops_session.refused")
            return _page("ops/login.html", 401, problem="This token is not correct.")
        secret = self._access.new_secret()
        with self._connections.borrow() as connection, transaction(connection, lock_seconds=LOCK_SECONDS):
            session_id = open_session(connection, self._access.secret_hmac(secret))
        _log.info("ops_session.opened", session_id=session_id)
        response = redirect(PATH, 303)
        self._access.set_cookie(request, response, secret)
        return response

    def logout(self) -> AnyResponse:
        with transaction(g.connection, lock_seconds=LOCK_SECONDS):
            end_session(g.connection, g.session_id)
        _log.info("ops_session.ended", session_id=g.session_id)
        response = redirect(PATH, 303)
        self._access.delete_cookie(response)
        return response

    def show(self) -> AnyResponse:
        with _reading() as connection:
            return _page(
                "ops/console.html",
                **_snapshot(connection),
                **_destinations(connection),
                **_failure_groups(connection),
                **_dead_letters(connection),
            )

    def snapshot(self) -> AnyResponse:
        with _reading() as connection:
            return _page("ops/snapshot.html", **_snapshot(connection))

    def dead_letters(self) -> AnyResponse:
        with _reading() as connection:
            return _page("ops/dead_letters.html", **_dead_letters(connection))

    def failure_groups(self) -> AnyResponse:
        with _reading() as connection:
            return _page("ops/failure_groups.html", **_failure_groups(connection))

    def message(self) -> AnyResponse:
        message_id = _id(request.args.get("id", ""))
        with _reading() as connection:
            found = None if message_id is None else read_message(connection, message_id)
        if found is None:
            raise ProblemError(404, "There is no message with this id.")
        return _page("ops/message.html", message=found, moments=_MOMENTS)

    def retry(self, message_id: int) -> AnyResponse:
        return decide("dead_letter.retried", message_id, dead_letters.retry)

    def discard(self, message_id: int) -> AnyResponse:
        return decide("dead_letter.discarded", message_id, partial(dead_letters.discard, reason=reason()))

    def retry_group(self, group_id: str) -> AnyResponse:
        return decide_group("failure_group.retried", group_id, dead_letters.retry_selected)

    def discard_group(self, group_id: str) -> AnyResponse:
        return decide_group(
            "failure_group.discarded", group_id, partial(dead_letters.discard_selected, reason=reason())
        )

    def destinations(self) -> AnyResponse:
        with _reading() as connection:
            return _page("ops/destinations.html", **_destinations(connection))

    def pause(self, name: str) -> AnyResponse:
        return decide_destination("destination.paused", name, partial(control.pause, reason=pause_reason()))

    def resume(self, name: str) -> AnyResponse:
        return decide_destination("destination.resumed", name, resume)

    def limit(self, name: str) -> AnyResponse:
        per_second, in_flight = limits()
        return decide_destination(
            "destination.limited",
            name,
            partial(control.set_limit, max_per_second=per_second, max_in_flight=in_flight),
        )


@contextmanager
def _reading() -> Iterator[DbConnection]:
    with read_transaction(g.connection):
        yield g.connection


def _snapshot(connection: DbConnection) -> dict[str, Any]:
    snapshot = read_snapshot(connection)
    return {"snapshot": snapshot, "plot": draw(snapshot.minutes), "width": WIDTH, "height": HEIGHT}


def _dead_letters(connection: DbConnection) -> dict[str, Any]:
    return {
        "dead_letters": dead_letters.list_dead(connection, _DEAD_LETTERS_SHOWN),
        "count": dead_letters.count_dead(connection),
    }


def _destinations(connection: DbConnection) -> dict[str, Any]:
    return {"destinations": read_destination_stats(connection, read_live_states(connection)), "rest": OTHER}


def _failure_groups(connection: DbConnection) -> dict[str, Any]:
    return {"groups": list_groups(connection, _GROUPS_SHOWN)}


def _id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) <= LARGEST_ID else None


def _show_problem(problem: ProblemError) -> Response:
    """Show a refused login (429) on the login page; other problems are JSON."""
    if request.endpoint != "ops.login":
        return respond(problem)
    response = _page("ops/login.html", problem.status, problem=problem.detail)
    response.headers.extend(problem.headers)
    return response


def _page(template: str, status: int = 200, **values: object) -> Response:
    """Render a page. Its one script may only contact this site, and the page cannot be framed."""
    nonce = secrets.token_urlsafe(16)
    response = make_response(
        render_template(template, nonce=nonce, form_key=g.get("form_key"), form_id=secrets.token_urlsafe(16), **values),
        status,
    )
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return response
