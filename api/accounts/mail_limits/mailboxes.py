"""Which mailbox an address leads to, as far as anybody outside can know."""

from typing import Final

_ONE_DOMAIN: Final = {"googlemail.com": "gmail.com"}
"""Two names of one provider's mailboxes."""

_WITHOUT_DOTS: Final = frozenset({"gmail.com"})
"""Providers that deliver to the same mailbox wherever dots stand in a name."""


def mailbox_of(email: str) -> str:
    """Return the mailbox's own address: in lower case, without `+tag`, and without dots where they mean nothing.

    Different providers know more ways to write one address; what is not known to be one mailbox counts as two.
    """
    name, _, domain = email.lower().rpartition("@")
    domain = _ONE_DOMAIN.get(domain, domain)
    # An address that begins with the tag has no name in front of it.
    name = name.partition("+")[0] or name
    if domain in _WITHOUT_DOTS:
        name = name.replace(".", "")
    return f"{name}@{domain}"


def is_plain(email: str) -> bool:
    """Tell whether an address is its mailbox's own."""
    return email.lower() == mailbox_of(email)
