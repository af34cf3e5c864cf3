"""What an endpoint's answer means for the attempt. The status code decides; nothing else of it is kept."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from consumer.webhooks.client import Answer

LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0
"""Retry-After counts up to an hour: an endpoint that names a year would never be asked again."""

_GONE: Final = 410
_OUTAGES: Final = frozenset({429, 502, 503, 504})
"""The endpoint as a whole takes nothing now, whatever the event."""


def is_accepted(answer: Answer) -> bool:
    """Return whether the receiver has taken the event: any 2xx."""
    return 200 <= answer.status < 300  # noqa: PLR2004 - the RFC's own numbers


def is_outage(answer: Answer) -> bool:
    """Return whether the endpoint takes nothing at present."""
    return answer.status in _OUTAGES


def wants_no_more(answer: Answer) -> bool:
    """Return whether the receiver asks for no further events, as Standard Webhooks defines 410."""
    return answer.status == _GONE


def reason_of(answer: Answer) -> str:
    """Return the reason of an answer that is not 2xx."""
    is_redirect = 300 <= answer.status < 400  # noqa: PLR2004 - the RFC's own numbers
    return f"the endpoint answered {answer.status}{': redirects are not followed' if is_redirect else ''}"


def retry_after_seconds(answer: Answer, now: datetime | None = None) -> float:
    """Return for how long the endpoint asks to be left alone; 0 if it does not say, or nothing that can be read."""
    text = (answer.retry_after or "").strip()
    is_number = text.isascii() and text.isdigit()
    seconds = float(text[:10]) if is_number else _seconds_until(text, now or datetime.now(UTC))
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)


def _seconds_until(date: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
