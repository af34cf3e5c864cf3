"""How an endpoint is shown to operators: never with its URL's path, which may contain a token."""

from datetime import UTC, datetime
from typing import Any

from outbox_relay.commands.output import visible
from shared.outbox.destinations.control import DISABLED
from shared.webhooks import endpoints
from shared.webhooks.endpoints import Endpoint
from shared.webhooks.urls import UnusableUrlError, parse_webhook_url


def as_json(endpoint: Endpoint) -> dict[str, Any]:
    """Return everything about an endpoint that may be shown."""
    return {
        "name": endpoint.name,
        "id": endpoint.id,
        "destination": endpoint.destination,
        "url": origin(endpoint),
        "events": endpoint.events,
        "state": state(endpoint),
        "is_disabled": endpoint.is_disabled,
        "waiting": min(endpoint.waiting, endpoints.COUNTED),
        "are_all_counted": endpoint.waiting <= endpoints.COUNTED,
        "secrets": endpoint.secrets,
        "created_at": endpoint.created_at,
        "enabled_at": endpoint.enabled_at,
        "events_end_at": endpoint.fan_out_until,
        "unavailable_since": endpoint.opened_at,
        "last_error": endpoint.last_error,
    }


def origin(endpoint: Endpoint) -> str:
    """Return scheme, host and port of an endpoint's URL."""
    try:
        return parse_webhook_url(endpoint.url).origin
    except UnusableUrlError as exc:
        return f"unusable: {exc}"


def waiting(endpoint: Endpoint) -> str:
    """Return how many messages wait for an endpoint."""
    is_more = endpoint.waiting > endpoints.COUNTED
    return f"more than {endpoints.COUNTED}" if is_more else str(endpoint.waiting)


def state(endpoint: Endpoint) -> str:
    """Return what keeps an endpoint from getting events, or "enabled"."""
    if endpoint.removed_at is not None:
        return f"being removed: run `webhooks remove {endpoint.name}` again"
    if endpoint.paused_at is not None:
        kind = "disabled" if endpoint.is_disabled else "paused"
        reason = (endpoint.pause_reason or "no reason").removeprefix(DISABLED)
        return f"{kind} since {visible(endpoint.paused_at)}: {reason}{_end_of_events(endpoint.fan_out_until)}"
    if endpoint.opened_at is not None:
        return f"unavailable since {visible(endpoint.opened_at)}: {endpoint.last_error}"
    return "enabled"


def _end_of_events(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return "; its events have ended" if moment <= datetime.now(UTC) else f"; its events end at {visible(moment)}"
