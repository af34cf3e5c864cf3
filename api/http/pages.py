"""Render pages, for clients that prefer HTML to JSON."""

from flask import Request, Response, make_response, render_template, request
from werkzeug.datastructures import MIMEAccept

from api.http.problems import ProblemError

_HTML = "text/html"
_JSON = ("application/json", "application/problem+json", "application/*")
_ANYTHING = "*/*"


def prefers_html(request: Request) -> bool:
    """Return whether the client prefers a page: it names `text/html` and ranks it above JSON.

    A browser names it and also accepts `*/*`, some at the same quality. A program that only sends `*/*` gets JSON.
    """
    qualities = _qualities(request.accept_mimetypes)
    html = qualities.get(_HTML, 0.0)
    if any(name in qualities for name in _JSON):
        return html > max(qualities.get(name, 0.0) for name in _JSON)
    return html > 0 and html >= qualities.get(_ANYTHING, 0.0)


def page(template: str, status: int = 200, **values: object) -> Response:
    """Render a page.

    Its `root` is the relative path from the request to `/`, which also works behind a proxy that adds a prefix.
    """
    root = "../" * request.path.count("/", 1)
    return make_response(render_template(template, root=root, **values), status)


def problem_page(template: str, problem: ProblemError, /, **values: object) -> Response:
    """Render a page about a problem, with the problem's status and headers (Allow, Retry-After)."""
    response = page(template, problem.status, **values)
    response.headers.extend(problem.headers)
    return response


def _qualities(accepted: MIMEAccept) -> dict[str, float]:
    qualities: dict[str, float] = {}
    for value, quality in accepted:
        name = value.partition(";")[0].strip().lower()
        qualities[name] = max(quality, qualities.get(name, 0.0))
    return qualities
