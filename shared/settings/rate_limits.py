"""The settings of how many requests one client may send."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from environs import Env, ValidationError

from shared.settings.parsing import Network, parse_networks, read_parsed

if TYPE_CHECKING:
    from limits import RateLimitItem


OFF: Final = "off"
NONE: Final = "none"
DEFAULT_EXEMPT: Final = "127.0.0.0/8,::1"
DEFAULTS: Final[Mapping[str, str]] = {
    "signup": "30 per minute",
    "verify": "60 per minute",
    "resend": "10 per minute",
    "ops_login": "10 per minute",
}
"""The name of each limit, which its variable begins with, and its default."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """How many requests one client may send to one process of the API.

    Attributes:
        by_name: the limit of each kind of request; what is not in it is not limited.
        exempt: addresses that are never limited. This machine is exempt by default: its address is that of load
            tests, and of a proxy whose forwarding headers are not believed, behind which everybody would share one
            limit.

    """

    by_name: "Mapping[str, RateLimitItem]" = field(default_factory=dict)
    exempt: tuple[Network, ...] = ()


def read_rate_limits(env: Env) -> RateLimits:
    """Read RATE_LIMIT_EXEMPT and each limit's variable (SIGNUP_RATE_LIMIT …); `env` collects problems."""
    limits = {
        name: read_parsed(env, f"{name.upper()}_RATE_LIMIT", _parse_limit, text) for name, text in DEFAULTS.items()
    }
    return RateLimits(
        by_name={name: limit for name, limit in limits.items() if limit is not None},
        exempt=read_parsed(env, "RATE_LIMIT_EXEMPT", _parse_networks, DEFAULT_EXEMPT),
    )


def _parse_limit(text: str) -> "RateLimitItem | None":
    from limits import parse_many  # noqa: PLC0415 - relay and worker have no limits, and do not pay for the library

    if text == OFF:
        return None
    try:
        [limit] = parse_many(text)
    except ValueError:
        limit = None
    if limit is None or limit.amount <= 0:
        raise ValidationError(f"is not one rate limit: write it as in '30 per minute', or '{OFF}'.")
    return limit


def _parse_networks(text: str) -> tuple[Network, ...]:
    return () if text == NONE else parse_networks(text, f"'{DEFAULT_EXEMPT}', or '{NONE}'")
