"""The names of the keys in the tests' Redis."""

from typing import Final

from rq.defaults import RQ_KEY_PREFIX

from shared.rq_format.keys import Keys

KEYS: Final = Keys(RQ_KEY_PREFIX)


def as_text(value: bytes | str | None) -> str:
    """Return as text what a client without decode_responses has read."""
    assert isinstance(value, bytes)
    return value.decode()
