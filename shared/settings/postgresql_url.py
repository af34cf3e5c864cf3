"""DATABASE_URL: its form, and the parameters that libpq reads when it connects.

A malformed parameter would look like an outage that never ends.
"""

from collections.abc import Mapping
from typing import Final

from environs import Env, ValidationError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from shared.settings.parsing import not_a_url, raise_problems, read_parsed, refuse_blanks

_SCHEMES: Final = {"postgresql", "postgres", "postgresql+psycopg"}
_WHOLE_NUMBERS: Final = frozenset(
    {
        "connect_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }
)
_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "channel_binding": frozenset({"disable", "prefer", "require"}),
    "gssencmode": frozenset({"disable", "prefer", "require"}),
    "load_balance_hosts": frozenset({"disable", "random"}),
    "sslmode": frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}),
    "target_session_attrs": frozenset({"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}),
}
_LARGEST_PORT: Final = 65_535
_LARGEST_NUMBER: Final = 2**31 - 1


def read_database_url() -> str:
    """Read DATABASE_URL alone. Raises SettingsError when it is missing or malformed."""
    env = Env(eager=False)
    database_url = read_parsed(env, "DATABASE_URL", parse_postgresql_url)
    raise_problems(env)
    return database_url


def parse_postgresql_url(text: str) -> str:
    """Return the URL in the form that libpq reads; it may name several hosts (libpq, 'Connection URIs').

    Raises:
        ValidationError: it is malformed.

    """
    refuse_blanks(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValidationError(not_a_url("it has to start with postgresql://"))
    before_options = rest.partition("?")[0]
    if before_options.count("@") > 1 or "@" in before_options.partition("/")[2]:
        # Part of the password would be taken for the host or the database, and logged at each outage.
        raise ValidationError(not_a_url("a password, or a user, with an @ in it needs %40 there, and %2F for a slash"))
    url = f"postgresql://{rest}"
    try:
        options = conninfo_to_dict(url)
    except ProgrammingError as exc:
        raise ValidationError(not_a_url("libpq cannot parse it")) from exc
    check_postgresql_parameters(options)
    return url


def check_postgresql_parameters(options: Mapping[str, object]) -> None:
    """Raise ValidationError naming the first parameter whose value libpq would refuse; never the value.

    Args:
        options: of the URL, by libpq's names.

    """
    for name, given in options.items():
        value = str(given)
        if name in _WHOLE_NUMBERS and not _is_number(value.strip(), _LARGEST_NUMBER):
            raise _refused(name, "a whole number")
        if name in _WORDS and value not in _WORDS[name]:
            raise _refused(name, f"one of {', '.join(sorted(_WORDS[name]))}")
        if name == "port" and not all(_is_number(port, _LARGEST_PORT) for port in value.split(",") if port):
            raise _refused(name, f"a whole number up to {_LARGEST_PORT}")


def _is_number(text: str, largest: int) -> bool:
    digits = text.removeprefix("-") if largest == _LARGEST_NUMBER else text
    return digits.isascii() and digits.isdecimal() and int(digits) <= largest


def _refused(name: str, what: str) -> ValidationError:
    return ValidationError(f"is not a usable URL: its {name} has to be {what}.")
