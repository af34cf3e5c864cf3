"""The events that are sent as webhooks, and the destinations of their messages."""

from typing import Final

USER_SIGNED_UP: Final = "user.signed_up"
USER_VERIFIED: Final = "user.verified"
EVENTS: Final = (USER_SIGNED_UP, USER_VERIFIED)

TEST_EVENT: Final = "webhook.test"
"""The event that `webhooks test` sends, to any endpoint."""

DESTINATION_PREFIX: Final = "webhook:"


def webhook_destination(endpoint_id: int) -> str:
    """Return the destination of the messages to an endpoint. An id is never used again, so neither is a destination."""
    return f"{DESTINATION_PREFIX}{endpoint_id}"
