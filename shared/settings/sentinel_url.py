"""The address of a Redis behind Sentinel: `redis+sentinel://[user:password@]host1:26379,host2:26379/service/db`."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
"""The second one means TLS, to the sentinels and to the master alike."""

CONNECTION_CLASS: Final = "consumer.redis_connection.SentinelRedis"
"""What RQ_CONNECTION_CLASS has to be for such a URL."""

_PORT: Final = 26379
_LARGEST_PORT: Final = 65_535
_OWN_PARAMETERS: Final = ("sentinel_username", "sentinel_password")
_FORM: Final = "redis+sentinel://[user:password@]host1:26379,host2:26379/service/db"


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The sentinels to ask for the master, and the settings of the connection to it.

    Attributes:
        sentinels: host and port of each.
        service: the name under which the sentinels watch the master.
        sentinel_username: the sentinels' own user; None without one.
        sentinel_password: the sentinels' own password, which need not be the master's.
        master_url: user, password, database and options in the form that redis-py reads; it names no host.

    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    sentinel_username: str | None
    sentinel_password: str | None = field(repr=False)
    master_url: str = field(repr=False)


def is_sentinel_url(url: str) -> bool:
    """Return whether the URL names sentinels instead of a server."""
    return url.partition("://")[0] in SENTINEL_SCHEMES


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Return the parts of the URL. What has a meaning in a URL is percent-encoded inside names and passwords.

    Raises:
        ValueError: it is malformed; the text says what is wrong, without a value.

    """
    scheme, _, rest = url.partition("://")
    if scheme not in SENTINEL_SCHEMES:
        raise ValueError(f"it has to be {_FORM}")
    if "#" in rest:
        raise ValueError("a # in a name or password has to be written as %23")
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    service, _, database = path.partition("/")
    if not service:
        raise ValueError(f"the sentinels have to be followed by the name of the service that they watch: {_FORM}")
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError("what follows the service has to be the number of a database")
    own, others = _split_query(query)
    master_url = f"{scheme.partition('+')[0]}://{userinfo}{'@' if userinfo else ''}/{database or 0}"
    master_url = f"{master_url}?{others}" if others else master_url
    try:
        urlsplit(master_url)
    except ValueError:  # its text may contain a part of the password
        raise ValueError("the user or password contains a character that has to be percent-encoded") from None
    return SentinelUrl(
        sentinels=tuple(_host_and_port(each) for each in hosts.split(",")),
        service=unquote(service),
        sentinel_username=own.get("sentinel_username"),
        sentinel_password=own.get("sentinel_password"),
        master_url=master_url,
    )


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address stands in brackets, with its port behind them: [::1]:26379")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise ValueError("an IPv6 address stands in brackets, with its port behind them: [::1]:26379")
    if not host:
        raise ValueError("each sentinel needs a host; several are separated by commas, without spaces")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _LARGEST_PORT):
        raise ValueError("the port of a sentinel has to be a number from 1 to 65535")
    return unquote(host), int(port) if port else _PORT


def _split_query(query: str) -> tuple[dict[str, str], str]:
    """Return the sentinels' own parameters, decoded, and all others unchanged, for redis-py."""
    own: dict[str, str] = {}
    others = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in _OWN_PARAMETERS:
            own[name] = unquote(value)
        elif name.startswith("sentinel"):
            raise ValueError(f"the only parameters of the sentinels are {' and '.join(_OWN_PARAMETERS)}")
        else:
            others.append(part)
    if "sentinel_username" in own and "sentinel_password" not in own:
        raise ValueError("sentinel_username needs sentinel_password")
    return own, "&".join(others)
