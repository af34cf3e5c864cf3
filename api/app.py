"""Wire the API: read its settings and connect its resources."""

from dataclasses import dataclass
from typing import Final

from flask import Flask, request
from flask.typing import ResponseReturnValue
from jinja2 import StrictUndefined
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from api.accounts.idempotency import HEADER as IDEMPOTENCY_KEY
from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.passwords.common import common_passwords
from api.accounts.routes.schemas import SignUpSchema
from api.accounts.routes.signup import signup_blueprint
from api.accounts.routes.signup_pages import signup_pages
from api.accounts.routes.verification import verification_blueprint
from api.accounts.service import AccountService
from api.clients.forwarding import Forwarding
from api.clients.ignored_headers import IgnoredHeaders, warn_of_untrusted_proxy
from api.clients.limit_bypasses import LimitBypasses
from api.clients.rate_limits import RateLimiter, limit_rates
from api.database.engine import build_engine
from api.database.notifier import Notifier
from api.database.side_connections import SideConnections
from api.http.bodies import READ_LIMIT_BYTES
from api.http.body_stream import BodyGuard
from api.http.cors import allow_origins
from api.http.logs import hide_query_strings
from api.http.pages import prefers_html, problem_page
from api.http.problems import problem_of, respond
from api.http.request_ids import use_request_ids
from api.http.security_headers import add_security_headers
from api.http.traces import trace_requests
from api.openapi.routes import docs_blueprint
from api.ops.routes import ops_blueprint
from api.status.health import health_blueprint
from api.status.metrics import add_metrics
from shared.logs import configure_logging
from shared.settings.api import ApiSettings, read_api_settings, read_ops_token
from shared.tracing.configuration import configure_tracing

_EXTENSION: Final = "outbox-api"
_WAIT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Resources:
    """The parts of an application that `close` has to close."""

    engine: Engine
    notifier: Notifier


def create_app(
    settings: ApiSettings | None = None,
    *,
    engine: Engine | None = None,
    notifier: Notifier | None = None,
    rate_limiter: RateLimiter | None = None,
    ops_token: str | None = None,
) -> Flask:
    """Build the WSGI application. Nothing is connected yet.

    Args:
        settings: the settings. Without them, the process's own are read from the environment, and logging is set up.
        engine: the connection pool. Default: one for settings.database_url.
        notifier: notifies the relay after a commit. Default: one for settings.database_url.
        rate_limiter: limits the clients' requests. Default: one for settings.rate_limits.
        ops_token: the token of the console; None for no console. Read from the environment together with the settings.

    """
    if settings is None:
        settings = read_api_settings()
        ops_token = read_ops_token()
        configure_logging()
        configure_tracing("outbox-api")
        hide_query_strings()
        warn_of_untrusted_proxy(settings.trusted_proxies)
    engine = engine or build_engine(settings.database_url)
    notifier = notifier or Notifier(settings.database_url)
    # Outside the pool: a probe, a scrape or the console never takes a connection from a signup.
    probe_connections = SideConnections(settings.database_url, most=2, wait_seconds=_WAIT_SECONDS)
    scrape_connections = SideConnections(settings.database_url, most=2, wait_seconds=_WAIT_SECONDS)
    console_connections = SideConnections(settings.database_url, most=2, wait_seconds=_WAIT_SECONDS)

    limiter = MailLimiter(settings.mail_limits, settings.secret_keys)
    accounts = AccountService(
        engine,
        notifier,
        settings.secret_keys,
        limiter,
        settings.signup_mail_delay_seconds,
        settings.unverified_days,
    )

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = READ_LIMIT_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined] # flask's default provider has it
    app.url_map.merge_slashes = False
    # A name that no route passes is an error, not an empty text.
    app.jinja_env.undefined = StrictUndefined
    use_request_ids(app)
    # Before the rate limits, so that requests which they refuse are measured and traced too.
    registry = CollectorRegistry()
    add_metrics(app, scrape_connections, registry)
    trace_requests(app, believe_header=settings.trusted_proxies > 0)
    warning_connections = SideConnections(settings.database_url, most=1, wait_seconds=_WAIT_SECONDS)
    limit_rates(
        app,
        rate_limiter or RateLimiter(settings.rate_limits),
        LimitBypasses(registry),
        IgnoredHeaders(warning_connections),
    )
    common_passwords()  # loads them now: the first signup would wait, or fail where the file is missing
    signup_schema = SignUpSchema(settings.password_min_length)
    app.register_blueprint(signup_blueprint(accounts, signup_schema))
    app.register_blueprint(verification_blueprint(engine, notifier, settings.secret_keys))
    app.register_blueprint(signup_pages(accounts, signup_schema, mailbox_url=settings.mailbox_url))
    app.register_blueprint(health_blueprint(probe_connections))
    app.register_blueprint(docs_blueprint(signup_schema))
    if ops_token is not None:
        app.register_blueprint(ops_blueprint(console_connections, ops_token))
    app.register_error_handler(Exception, _answer_error)
    app.after_request(add_security_headers)
    allow_origins(app, settings.cors_origins, [IDEMPOTENCY_KEY])
    app.extensions[_EXTENSION] = _Resources(engine, notifier)
    app.wsgi_app = BodyGuard(app.wsgi_app)  # type: ignore[method-assign]
    app.wsgi_app = Forwarding(  # type: ignore[method-assign]
        app.wsgi_app, settings.trusted_proxies, settings.forwarding_header
    )
    return app


def close(app: Flask) -> None:
    """Close the application's connections and threads."""
    resources: _Resources = app.extensions[_EXTENSION]
    resources.notifier.close()
    resources.engine.dispose()


def _answer_error(error: Exception) -> ResponseReturnValue:
    """Return the error as a problem; as a page to a browser at a path without a route."""
    problem = problem_of(error)
    if request.blueprint is not None:
        return respond(problem)
    html = prefers_html(request)
    response = problem_page("problem.html", problem, problem=problem) if html else respond(problem)
    response.vary.add("Accept")
    return response
