"""Change one part of a server's address and keep its login and parameters."""

from urllib.parse import urlsplit


def with_parameter(url: str, parameter: str) -> str:
    """Return the address with one more parameter, such as `connect_timeout=3`."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{parameter}"


def with_login(url: str, login: str) -> str:
    """Return the address with another login, such as `user:password`."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
