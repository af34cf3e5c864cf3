"""Texts about a server that cannot be used: its host and port, and the first line of the error.

A cause is written to logs, terminals and the reasons of messages. So it contains no password, no mail address and no
value of a user: only those PostgreSQL errors are quoted whose first line cannot contain one, and of Redis' replies
nothing that repeats the arguments of a command.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shared.settings.sentinel_url import is_sentinel_url, parse_sentinel_url

_LONGEST_REASON: Final = 200

_QUOTED_CLASSES: Final = frozenset({"08", "25", "28", "3D", "3F", "40", "53", "55", "57", "58"})
"""Connections, transactions, logins, names of databases and schemas, resources, operator intervention, files."""

_QUOTED_STATES: Final = frozenset({"42501", "42P01", "42703", "42883"})
"""A missing grant, table, column or function. Other errors of that class quote SQL."""

_ATTEMPT: Final = re.compile(
    r"- host: (?:None|'(?P<host>[^']*)'), port: (?:None|'(?P<port>[^']*)'), hostaddr: (?:None|'[^']*'): (?P<reason>.*)"
)
_POSTGRESQL_SERVER: Final = re.compile(
    r'connection to server (?:at "(?P<host>[^"]*)"(?: \([^)]*\))?, port (?P<port>\d+)|on socket "(?P<socket>[^"]*)")'
    r" failed: "
)
_POSTGRESQL_PORT: Final = "5432"

_REDIS_PORT: Final = "6379"
_REDIS_CONNECTING: Final = re.compile(r"Error(?: -?\d+)? connecting to (?P<address>[^ ]*)\. ")
_NO_MASTER: Final = "MasterNotFoundError"
"""redis-py's error when no sentinel names a master; `shared` does not import redis."""
_REDIS_PIPELINE: Final = re.compile(r"\ACommand # \d+ .* of pipeline caused error: ")


def postgresql_cause(error: BaseException, database_url: str) -> str:
    """Return why PostgreSQL cannot be used, such as `db:5432: FATAL: database "x" does not exist`."""
    try:
        options = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        options = {}
    secrets = [str(options[name]) for name in ("password", "sslpassword") if options.get(name)]
    attempts = [found for line in str(error).splitlines() if (found := _ATTEMPT.match(line))]
    if attempts and not getattr(error, "sqlstate", None):
        causes = dict.fromkeys(
            f"{each['host'] or 'localhost'}:{each['port'] or _POSTGRESQL_PORT}: {_libpq_reason(each['reason'])}"
            for each in attempts
        )
        return _without_secrets("; ".join(causes), secrets, type(error).__name__)
    servers = _postgresql_servers(options) or _server_in(str(error))
    return _without_secrets(_joined(servers, postgresql_reason(error)), secrets, _joined(servers, type(error).__name__))


def postgresql_reason(error: BaseException) -> str:
    """Return the first line of the error, or the error's name if that line may contain a user's value."""
    if not isinstance(error, psycopg.Error):
        return type(error).__name__
    state: str | None = error.sqlstate
    if state is None:
        if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return type(error).__name__
        return _libpq_reason(str(error)) or type(error).__name__
    said = error.diag.message_primary
    if said and (state[:2] in _QUOTED_CLASSES or state in _QUOTED_STATES):
        return f"{_first_line(said)} ({state})"
    return f"{type(error).__name__} ({state})"


def redis_cause(error: BaseException, redis_url: str) -> str:
    """Return why Redis cannot be used, such as `cache:6379: NOPERM User relay has no permissions …`.

    Args:
        error: the error of redis-py or of the operating system.
        redis_url: as RQ_REDIS_URL has it; all of its hosts are named.

    """
    if is_sentinel_url(redis_url):
        return _cause_behind_sentinel(error, redis_url)
    try:
        parts = urlsplit(redis_url)
    except ValueError:
        return type(error).__name__
    secrets = [text for name, text in parse_qsl(parts.query) if "password" in name]
    if password := unquote(parts.netloc.rpartition("@")[0].partition(":")[2]):
        secrets.append(password)
    servers = _redis_servers(parts)
    return _without_secrets(_joined(servers, _redis_reason(error)), secrets, _joined(servers, type(error).__name__))


def connection_cause(error: BaseException, host: str, port: int) -> str:
    """Return why a server behind a plain socket cannot be used, such as `mail:25: Connection refused`.

    The caller quotes the server's own answer, because only the caller knows which values to remove from it.
    """
    return _joined(f"{_bracketed(host)}:{port}", _system_reason(error))


def _libpq_reason(text: str) -> str:
    """Return the reason in an error without a SQLSTATE: the text of libpq, of psycopg, or the server's FATAL."""
    line = _first_line(text)
    found = _POSTGRESQL_SERVER.search(line)
    if found:
        line = line[found.end() :]
    for prefix in ("connection failed: ", "connection is bad: ", "consuming input failed: "):
        line = line.removeprefix(prefix)
    if line.startswith("invalid "):
        # Such as a port that is no number: it may be part of a password with an unescaped slash.
        line = re.sub(r'"[^"]*"', '"…"', line)
    return line


def _postgresql_servers(options: Mapping[str, object]) -> str:
    hosts = str(options.get("host") or options.get("hostaddr") or "")
    if not hosts:
        return ""
    ports = str(options.get("port") or _POSTGRESQL_PORT).split(",")
    names = hosts.split(",")
    if len(ports) == 1:
        ports *= len(names)
    pairs = zip(names, ports, strict=False)
    return ",".join(
        host if host.startswith("/") else f"{_bracketed(host or 'localhost')}:{port or _POSTGRESQL_PORT}"
        for host, port in pairs
    )


def _server_in(text: str) -> str:
    """Return the server that libpq names, for a URL without a host."""
    found = _POSTGRESQL_SERVER.search(text)
    if found is None:
        return ""
    return found["socket"] or f"{_bracketed(found['host'])}:{found['port']}"


def _redis_reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, (OSError, ValueError)) and type(error).__module__ != "redis.exceptions":
        return _system_reason(error)
    text = _REDIS_PIPELINE.sub("", _first_line(text), count=1)
    text = _REDIS_CONNECTING.sub("", text, count=1).partition(", with args beginning with")[0]
    code = getattr(error, "status_code", None)
    if isinstance(code, str) and code not in {"", "ERR"} and not text.startswith(code):
        text = f"{code} {text}"
    return text or type(error).__name__


def _cause_behind_sentinel(error: BaseException, redis_url: str) -> str:
    """Return the sentinels' answers, or the error of the master that they name."""
    name = type(error).__name__
    try:
        url = parse_sentinel_url(redis_url)
    except ValueError:
        return name
    if name == _NO_MASTER:
        cause = str(error)  # our own text, which names each sentinel
    else:
        found = _REDIS_CONNECTING.search(_first_line(str(error)))
        at = f" at {found['address']}" if found else ""
        cause = f"the master of {url.service!r}{at}: {_redis_reason(error)}"
    secrets = [unquote(urlsplit(url.master_url).password or ""), url.sentinel_password]
    return _without_secrets(cause, [each for each in secrets if each], name)


def _redis_servers(parts: SplitResult) -> str:
    if parts.scheme == "unix":
        return unquote(parts.path)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return ",".join(host if _has_port(host) else f"{host or 'localhost'}:{_REDIS_PORT}" for host in hosts)


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _system_reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {_first_line(error.reason or type(error).__name__)}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return _first_line(error.strerror)
    return type(error).__name__


def _first_line(text: str) -> str:
    lines = text.strip()[: 4 * _LONGEST_REASON].splitlines()
    printable = "".join(char if char.isprintable() else " " for char in (lines[0] if lines else ""))
    return " ".join(printable.split())[:_LONGEST_REASON]


def _joined(servers: str, reason: str) -> str:
    return f"{servers}: {reason}" if servers else reason


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_secrets(cause: str, secrets: list[str], otherwise: str) -> str:
    """Return the cause, or `otherwise` if it contains a secret: in a malformed URL a secret may be anywhere."""
    return otherwise if any(secret in cause for secret in secrets) else cause
