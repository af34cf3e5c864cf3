"""The names of the keys in the tests' Redis."""

from typing import Final

from rq.defaults import RQ_KEY_PREFIX

from shared.rq_format.keys import Keys

KEYS: Final = Keys(RQ_KEY_PREFIX)
