"""Read environment variables: the parsers that several processes use, and the report of all problems at once.

A problem names the variable and never its value, which may be a secret.
"""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from environs import Env, EnvValidationError, ValidationError, validate

from shared.errors import SettingsError

_Value = TypeVar("_Value")

Network = IPv4Network | IPv6Network

DEFAULT_UNVERIFIED_DAYS: Final = 7.0
_MINIMUM_KEY_CHARACTERS: Final = 32
NO_SECRET: Final = (
    f"needs at least {_MINIMUM_KEY_CHARACTERS} printable characters:"
    " make them with python -c 'import secrets; print(secrets.token_urlsafe(32))'."
)


def raise_problems(env: Env) -> None:
    """Raise SettingsError naming every variable that `env` found missing or malformed."""
    try:
        env.seal()
    except EnvValidationError as exc:
        raise SettingsError(cast("dict[str, list[str]]", exc.error_messages)) from None


def read_parsed(env: Env, name: str, parse: Callable[[str], _Value], default: str | None = None) -> _Value:
    """Return what `parse` makes of a variable's text, or of the default.

    If a variable is malformed, or is missing and has no default, `env` collects the problem as it does for its own
    methods. What is returned then must not be used: call raise_problems first.
    """
    if default is None:
        env.str(name)
    if values := _read_if_set(env, name, parse):
        return values[0]
    return cast("_Value", None) if default is None else parse(default)


def read_optional(env: Env, name: str, parse: Callable[[str], _Value]) -> _Value | None:
    """Return what `parse` makes of a variable's text; None if it is not set, or malformed, which `env` collects."""
    return next(iter(_read_if_set(env, name, parse)), None)


def _read_if_set(env: Env, name: str, parse: Callable[[str], _Value]) -> list[_Value]:
    """Return the parsed value in a list, which is empty if the variable is not set or malformed: None is a value."""
    values: list[_Value] = []
    env.str(name, None, validate=lambda text: values.append(parse(text)))
    return values


def parse_networks(text: str, example: str) -> tuple[Network, ...]:
    """Return the networks of a list that is separated by commas. Raises ValidationError, which shows the example."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(","))
    except ValueError:
        raise ValidationError(f"is not a list of networks: write them as in {example}.") from None


def read_unverified_days(env: Env) -> float:
    """Return UNVERIFIED_DAYS, which API and relay read alike."""
    return env.float("UNVERIFIED_DAYS", DEFAULT_UNVERIFIED_DAYS, validate=validate.Range(min=0, max=36_500))


def read_seconds(env: Env, name: str, default: float) -> float:
    """Return a variable that holds seconds, above 0 and at most a day."""
    return env.float(name, default, validate=positive(86_400))


def positive(largest: float) -> validate.Range:
    """Return a check for a number above 0."""
    return validate.Range(min=0, min_inclusive=False, max=largest)


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL whose port is valid. Raises ValidationError."""
    refuse_blanks(url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number up to 65535
    except ValueError as exc:
        raise ValidationError(not_a_url("it cannot be parsed")) from exc
    return parts


def refuse_blanks(url: str) -> None:
    """Raise ValidationError for characters that urlsplit drops silently, such as a line break at the end.

    The program that gets the URL would not drop them.
    """
    if " " in url or not url.isprintable():
        raise ValidationError(
            not_a_url(
                "it contains a space, a line break or another character that a URL cannot contain; write a space as %20"
            )
        )


def not_a_url(why: str) -> str:
    """Return the problem of a variable that holds no usable URL."""
    return f"is not a usable URL: {why}."


def parse_base_url(text: str) -> str:
    """Return the start of a link, without a slash at its end. Raises ValidationError."""
    parts = split_url(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValidationError(not_a_url("it has to be http://host or https://host, without a query"))
    return text.rstrip("/")


def parse_secret_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a list that is separated by commas. Raises ValidationError."""
    keys = tuple(key.strip() for key in text.split(","))
    if not all(map(is_secret, keys)):
        raise ValidationError(f"{NO_SECRET} Several keys are separated by commas.")
    return keys


def is_secret(key: str) -> bool:
    """Return whether a key is long enough, and printable: bytes that are no UTF-8 cannot be used."""
    return len(key) >= _MINIMUM_KEY_CHARACTERS and key.isprintable()
