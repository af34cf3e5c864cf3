"""RQ_REDIS_URL: its form, and the parameters of redis-py that may follow its question mark.

redis-py reads the URL when a client is created, and the names of the parameters when the client first connects. Either
ends the process with a traceback that does not name the variable. So this module checks both before. A test holds it
against redis-py, which `shared` may not import.
"""

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

from environs import ValidationError

from shared.settings.parsing import not_a_url, refuse_blanks, split_url
from shared.settings.sentinel_url import is_sentinel_url, parse_sentinel_url

_SCHEMES: Final = {"redis", "rediss", "unix"}

_Check = Callable[[str], bool]


def _is_number(text: str, kind: type[int] | type[float], least: float) -> bool:
    try:
        return least <= kind(text) < float("inf")
    except ValueError:
        return False


def _whole(least: int) -> _Check:
    return lambda text: _is_number(text, int, least)


def _is_seconds(text: str) -> bool:
    return _is_number(text, float, 0) and float(text) > 0


def _one_of(*words: str) -> _Check:
    return lambda text: text in words


_is_switch: Final = _one_of("true", "false", "True", "False", "yes", "no", "1", "0")
_is_text: Final[_Check] = bool

_ANYWHERE: Final[Mapping[str, _Check]] = {
    "client_name": _is_text,
    "db": _whole(0),
    "health_check_interval": _whole(0),
    "max_connections": _whole(1),
    "password": _is_text,
    "protocol": _one_of("2", "3"),
    "retry_on_timeout": _is_switch,
    "socket_connect_timeout": _is_seconds,
    "socket_read_size": _whole(1),
    "socket_timeout": _is_seconds,
    "username": _is_text,
}
_TCP: Final[Mapping[str, _Check]] = {**_ANYWHERE, "socket_keepalive": _is_switch}
_TLS: Final[Mapping[str, _Check]] = {
    **_TCP,
    "ssl_ca_certs": _is_text,
    "ssl_ca_path": _is_text,
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_certfile": _is_text,
    "ssl_check_hostname": _is_switch,
    "ssl_ciphers": _is_text,
    "ssl_keyfile": _is_text,
    "ssl_min_version": _whole(0),
    "ssl_password": _is_text,
}
PARAMETERS: Final[Mapping[str, Mapping[str, _Check]]] = {"redis": _TCP, "rediss": _TLS, "unix": _ANYWHERE}
"""The parameters by the URL's scheme. Parameters that change the form of replies are not among them."""


def parse_redis_url(text: str) -> str:
    """Return the URL if redis-py, or our client for Sentinel, can read it. Raises ValidationError."""
    if is_sentinel_url(text):
        return _sentinel_url(text)
    parts = split_url(text)
    if parts.scheme not in _SCHEMES or not (parts.hostname or parts.path):
        raise ValidationError(
            not_a_url("it has to be redis://host:port/db, rediss://…, redis+sentinel://… or unix://path")
        )
    if parts.scheme != "unix" and parts.path not in {"", "/"} and not parts.path[1:].isdecimal():
        raise ValidationError(not_a_url("what follows the host has to be the number of a database"))
    check_redis_parameters(parts.scheme, parts.query)
    return text


def _sentinel_url(text: str) -> str:
    refuse_blanks(text)
    try:
        address = parse_sentinel_url(text)
    except ValueError as exc:
        raise ValidationError(not_a_url(str(exc))) from None
    parts = urlsplit(address.master_url)
    check_redis_parameters(parts.scheme, parts.query)
    return text


def check_redis_parameters(scheme: str, query: str) -> None:
    """Raise ValidationError for a parameter that cannot be used.

    The error never repeats the value: after an unescaped question mark the rest of a password looks like a parameter.
    """
    known = PARAMETERS[scheme]
    for name, values in parse_qs(query).items():
        if name not in known:
            raise ValidationError(
                "is not a usable URL: after its question mark it has a parameter that is none of"
                f" {', '.join(sorted(known))}; write a question mark in a password as %3F."
            )
        # redis-py takes the first of several.
        if not known[name](values[0]):
            raise ValidationError(f"is not a usable URL: the value of its parameter {name} cannot be used.")
