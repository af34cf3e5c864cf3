"""What the API takes the worker can put into a mail: both sides, held together on any text."""

from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.accounts.routes.schemas import SignUpSchema, load
from api.accounts.signup import SignUpRequest
from api.http.problems import ProblemError
from consumer.mail.compose import compose
from consumer.task import Mail, Undeliverable
from shared.addresses import is_mailable
from tests.programs.api_service import ALICE

SCHEMA = SignUpSchema()
SENDER = Address("Signup", "noreply", "example.org")

_ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
_PIECES = ["=?", "?=", "utf-8", "?q?", "=0d=0a", "a", "A", "1", "+", ".", "..", "-", "_", '"', "(", "<", ">", ",", ";"]
_ODD = [
    " ",
    "\t",
    "\n",
    "\r\n",
    "\x00",
    "\x7f",
    "\u00a0",
    "ü",
    "\u200b",
    "\uff20",
    "\ud800",
    "@",
    ":",
    "\\",
    "[1.2.3.4]",
]
LOCAL_PARTS = st.one_of(
    st.text(_ATEXT, min_size=1, max_size=64),
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6).map("".join),
    st.lists(st.sampled_from(_PIECES + _ODD), max_size=6).map("".join),
)
DOMAINS = st.one_of(
    st.sampled_from(["example.com", "EXAMPLE.org", "bücher.test", "xn--bcher-kva.test", "例え.jp", "a.b-c.example"]),
    st.lists(st.sampled_from(["example", ".", ".com", "-", "_", "=?", "xn--", "ü", "1", *_ODD]), max_size=5).map(
        "".join
    ),
)
BLANKS = st.text(" \t\n\u00a0", max_size=2)
ADDRESSES = st.one_of(
    st.builds("{}{}@{}{}".format, BLANKS, LOCAL_PARTS, DOMAINS, BLANKS), st.emails(), st.text(max_size=40)
)
NAMES = st.one_of(st.text(min_size=1, max_size=100), st.lists(st.sampled_from(_PIECES + _ODD), min_size=1).map("".join))


def taken(**changes: str) -> SignUpRequest | None:
    """Return what the API makes of a signup, None where it refuses it."""
    try:
        request: SignUpRequest = load(SCHEMA, {**ALICE, **changes})
    except ProblemError:
        return None
    return request


def reader(request: SignUpRequest) -> tuple[str, str, str]:
    """Compose a mail; return the name and the address of its header, and the envelope's address. Raises."""
    envelope = compose(
        Mail(request.email, request.full_name, "Welcome", "welcome_email", {"username": "alice"}), uuid4(), SENDER
    )
    [address] = message_from_bytes(envelope.content, policy=default)["To"].addresses
    return address.display_name, address.addr_spec, envelope.recipient


@settings(max_examples=100, deadline=None)
@given(text=ADDRESSES)
@example(text="=?utf-8?q?x?=@example.com")
@example(text="a=?b@example.com")
@example(text=" \u00a0a=b?c@example.com\n")
def test_address_that_is_taken_can_be_mailed_to(text: str) -> None:
    if (request := taken(email=text)) is not None:
        assert is_mailable(request.email)
        assert reader(request)[1:] == (request.email, request.email)


@settings(max_examples=100, deadline=None)
@given(text=ADDRESSES)
@example(text="=?utf-8?q?x?=@example.com")
def test_address_that_cannot_be_mailed_to_is_refused(text: str) -> None:
    try:
        compose(Mail(text, "", "Welcome", "welcome_email", {"username": "alice"}), uuid4(), SENDER)
    except Undeliverable:
        request = taken(email=text)
        # What the API changes is what it may keep: the blanks around it and the script of its domain.
        assert request is None or request.email != text


@settings(max_examples=100, deadline=None)
@given(name=NAMES)
def test_name_that_is_taken_can_be_mailed_to(name: str) -> None:
    if (request := taken(full_name=name)) is not None:
        assert reader(request)[1:] == (request.email, request.email)


@pytest.mark.parametrize("local_part", ["alice", "a=b", "a?b", "=", "?", "!#$%&'*+-/^_`{|}~", "a" * 64])
def test_usual_and_unusual_addresses_are_taken(local_part: str) -> None:
    request = taken(email=f"{local_part}@example.com")

    assert request is not None
    assert reader(request)[2] == f"{local_part}@example.com"
