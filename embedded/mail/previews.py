"""Previews of each kind of mail, composed from made-up values, for people who change a template."""

from collections.abc import Mapping
from email.headerregistry import Address
from pathlib import Path
from typing import Final
from uuid import UUID

from consumer.mail.compose import compose
from consumer.task import Mail
from embedded.mail.folder import CaughtMail
from shared.links import verification_link

_UID: Final = UUID(int=1)
_SENDER: Final = Address("Outbox Signup", "no-reply", "example.com")
_LINK: Final = verification_link("https://example.com", 1, "MDKTmUjthi0Ocl6bWIZ6r2ViDJ0lqX4pHVRZ6vU3wVU")
_ADDRESS: Final = "ada@example.com"

PREVIEWS: Final[Mapping[str, Mail]] = {
    "verify_email": Mail(_ADDRESS, "", "Verify your email address", "verify_email", {"link": _LINK, "username": "ada"}),
    "welcome_email": Mail(_ADDRESS, "Ada Lovelace", "Welcome", "welcome_email", {"username": "ada"}),
}
"""By the name of the template."""


def preview(name: str) -> CaughtMail | None:
    """Compose the mail of that template; None for an unknown one."""
    if (mail := PREVIEWS.get(name)) is None:
        return None
    envelope = compose(mail, _UID, _SENDER)
    return CaughtMail(Path(f"{name}.eml"), envelope.sender, (envelope.recipient,), envelope.content)
