"""Record one span per request, named after its route. Messages that the request appends continue its trace."""

from contextlib import ExitStack

from flask import Flask, Response, g, request

from shared.tracing.spans import Span, tracing

_SERVER_ERROR = 500


def trace_requests(app: Flask, *, believe_header: bool) -> None:
    """Trace the application's requests. Without tracing, nothing is added to them.

    Neither the path nor the query is recorded: a query contains the codes of links.

    Args:
        app: the application.
        believe_header: continue the trace of a request's traceparent header; only behind a trusted proxy.

    """
    if not tracing().is_on:
        return

    @app.before_request
    def begin() -> None:
        g.trace = ExitStack()
        route = "unknown" if request.url_rule is None else request.url_rule.rule
        parent = request.headers.get("traceparent") if believe_header else None
        g.span = g.trace.enter_context(tracing().span(f"{request.method} {route}", "server", parent=parent))
        g.span.note("http.route", route)
        g.span.note("http.request.method", request.method)

    @app.after_request
    def note_status(response: Response) -> Response:
        span: Span | None = g.get("span")
        if span is not None:
            span.note("http.response.status_code", response.status_code)
            if response.status_code >= _SERVER_ERROR:
                span.failed()
        return response

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        opened: ExitStack | None = g.pop("trace", None)
        if opened is not None:
            opened.close()
