"""The settings of how many requests one client may send."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final

from environs import Env, ValidationError

if TYPE_CHECKING:
    from limits import RateLimitItem

Network = IPv4Network | IPv6Network

OFF: Final = "off"
NONE: Final = "none"
_EXEMPT: Final = "exempt"
DEFAULT_EXEMPT: Final = "127.0.0.0/8,::1"
DEFAULTS: Final[Mapping[str, str]] = {
    "signup": "30 per minute",
    "verify": "60 per minute",
    "resend": "10 per minute",
    "ops_login": "10 per minute",
}
"""The variable of each limit, and its default."""


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


def read_texts(env: Env) -> dict[str, str]:
    """Read RATE_LIMIT_EXEMPT and each limit's variable (SIGNUP_RATE_LIMIT …); `env` collects errors."""
    texts = {
        name: env.str(f"{name.upper()}_RATE_LIMIT", text, validate=_check_limit) for name, text in DEFAULTS.items()
    }
    return {**texts, _EXEMPT: env.str("RATE_LIMIT_EXEMPT", DEFAULT_EXEMPT, validate=_check_networks)}


def parse_texts(texts: Mapping[str, str]) -> RateLimits:
    """Parse the variables, once all of them are known to be valid."""
    limits = {name: _limit(text) for name, text in texts.items() if name != _EXEMPT and text != OFF}
    return RateLimits(limits, _networks(texts[_EXEMPT]))


def _limit(text: str) -> "RateLimitItem":
    """Parse one limit. Raises ValueError."""
    from limits import parse_many  # noqa: PLC0415 - relay and worker have no limits, and do not pay for the library

    [limit] = parse_many(text)
    return limit


def _check_limit(text: str) -> None:
    try:
        is_usable = text == OFF or _limit(text).amount > 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValidationError(f"is not one rate limit: write it as in '30 per minute', or '{OFF}'.")


def _check_networks(text: str) -> None:
    try:
        _networks(text)
    except ValueError:
        message = f"is not a list of networks: write them as in '{DEFAULT_EXEMPT}', or '{NONE}'."
        raise ValidationError(message) from None


def _networks(text: str) -> tuple[Network, ...]:
    if text == NONE:
        return ()
    return tuple(ip_network(part.strip()) for part in text.split(","))
