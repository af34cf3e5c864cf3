"""What schemathesis cannot know about this API. It loads this module.

- Values for the formats in the OpenAPI document.
- An Idempotency-Key is for one request: the document's example with many bodies would be refused.
- Which passwords are common: the smallest one of eight characters is "00000000".
- Which link exists: every second valid request gets it, because none would find one by chance.
"""

import os
import re
import uuid
from itertools import cycle
from typing import Any
from urllib.parse import parse_qsl

import schemathesis
from hypothesis import strategies as st

from api.accounts.idempotency import HEADER, KEY_PATTERN
from api.accounts.passwords.common import is_common
from shared.links import VERIFY_PATH
from tests.fuzz.running import LINK_VARIABLE

_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda text: text[2:4] != "--")
_LOCAL_PART = st.from_regex(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,30}(\.[a-z0-9]{1,30})?", fullmatch=True)
_LETTERS = st.characters(categories=["L", "N"])
_NAME_CHARACTERS = st.characters(categories=["L", "N", "P", "S", "Zs"])

schemathesis.openapi.format("email", st.builds("{}@{}.example.com".format, _LOCAL_PART, _LABEL))
schemathesis.openapi.format(
    "full-name", st.builds("{}{}".format, _LETTERS, st.text(_NAME_CHARACTERS, max_size=99)).map(lambda name: name[:100])
)
# The prefix keeps it off the list of common passwords, and different from the other fields.
schemathesis.openapi.format(
    "password", st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=115).map("correct horse{}".format)
)


_LINK = dict(parse_qsl(os.environ[LINK_VARIABLE]))
_TURNS = cycle((True, False))


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Give each valid request its own username, and some the existing link."""
    is_good = case.meta is not None and case.meta.generation.mode.is_positive
    if is_good and case.path == VERIFY_PATH and next(_TURNS):
        if case.method == "GET":
            case.query.update(_LINK)
        else:
            case.body = dict(_LINK)
    if is_good and isinstance(case.body, dict) and is_common(str(case.body.get("password", ""))):
        case.body["password"] = "q7#xkvz2"  # noqa: S105 - nobody has it
    if case.headers and re.fullmatch(KEY_PATTERN, str(case.headers.get(HEADER, ""))):
        case.headers[HEADER] = str(uuid.uuid4())
