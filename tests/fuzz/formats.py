"""Values of the formats that the OpenAPI document names, for schemathesis, which loads this module."""

import schemathesis
from hypothesis import strategies as st

_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda text: text[2:4] != "--")
_LOCAL_PART = st.from_regex(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,30}(\.[a-z0-9]{1,30})?", fullmatch=True)
_LETTERS = st.characters(categories=["L", "N"])
_NAME_CHARACTERS = st.characters(categories=["L", "N", "P", "S", "Zs"])

schemathesis.openapi.format("email", st.builds("{}@{}.example.com".format, _LOCAL_PART, _LABEL))
schemathesis.openapi.format(
    "full-name", st.builds("{}{}".format, _LETTERS, st.text(_NAME_CHARACTERS, max_size=99)).map(lambda name: name[:100])
)
schemathesis.openapi.format(
    "password", st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=8, max_size=128)
)
