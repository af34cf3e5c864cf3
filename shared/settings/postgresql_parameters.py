"""Values in a PostgreSQL URL that libpq reads when it connects: a malformed one would look like an endless outage."""

from collections.abc import Mapping
from typing import Final

from environs import ValidationError

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
