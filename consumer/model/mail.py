"""The mail that a task prepares for one person."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail for one person, before its templates are rendered.

    Attributes:
        recipient: the address.
        recipient_name: the person's name, for the To header and as `name` in the templates. Empty while the address is
            not verified: otherwise anyone could send a text to a stranger by signing up.
        subject: one line.
        template: the name of the two templates, without `.html` and `.txt`.
        values: what the templates show besides `name`.

    """

    recipient: str
    recipient_name: str
    subject: str
    template: str
    values: Mapping[str, object]
