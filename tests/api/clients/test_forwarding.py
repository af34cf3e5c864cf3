"""The client's address behind proxies of every kind."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.clients.forwarding import Forwarding, client_of, parse_forwarded, read_address
from shared.settings.api import FORWARDED, X_FORWARDED_FOR, ForwardingHeader

PROXY = "10.0.0.1"


class Asked:
    """What the application sees of a request."""

    def __init__(self, trusted: int, header: ForwardingHeader, peer: str = PROXY, **headers: str) -> None:
        self.environ: dict[str, Any] = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "inside"}
        self.environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
        Forwarding(self._answer, trusted, header)(self.environ, lambda *_: lambda _: None)
        self.client = client_of(self)  # type: ignore[arg-type]

    def _answer(self, environ: Any, _start: Any) -> Iterable[bytes]:
        self.seen = environ
        return ()

    @property
    def address(self) -> str:
        return str(self.seen["REMOTE_ADDR"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.8", "203.0.113.8"),
        ("203.0.113.8:40000", "203.0.113.8"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8:0:0::1]:_hidden", "2001:db8::1"),
        ("::ffff:203.0.113.8", "203.0.113.8"),
        ("[::ffff:203.0.113.8]:80", "203.0.113.8"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
    ],
)
def test_an_address_is_read_in_every_form_that_proxies_write(text: str, address: str) -> None:
    assert str(read_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "-",
        "localhost",
        "203.0.113",
        "203.0.113.8:",
        "1.2.3.4:5:6",
        "[2001:db8::1",
        "[]",
        "1.2.3.04",
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert read_address(text) is None


@pytest.mark.parametrize(
    ("trusted", "header", "address", "ignored"),
    [
        (0, None, PROXY, None),
        (0, "203.0.113.8", PROXY, "X-Forwarded-For"),
        (1, None, PROXY, None),
        (1, "203.0.113.8:40000", "203.0.113.8", None),
        (1, "198.51.100.1, [2001:db8::1]:443", "2001:db8::1", None),
        (1, "198.51.100.1, unknown", "", None),
        (1, "198.51.100.1,", "", None),
        (2, "198.51.100.1, 203.0.113.8, 10.0.0.2", "203.0.113.8", None),
        (2, "203.0.113.8", PROXY, "X-Forwarded-For"),
    ],
)
def test_the_entries_that_trusted_proxies_wrote_are_believed(
    trusted: int, header: str | None, address: str, ignored: str | None
) -> None:
    asked = Asked(trusted, X_FORWARDED_FOR, **({} if header is None else {"x_forwarded_for": header}))

    assert (asked.address, asked.client.ignored) == (address, ignored)
    assert asked.client.is_forwarded is (address != PROXY)


@pytest.mark.parametrize(
    ("trusted", "header", "address"),
    [
        (1, "for=203.0.113.8", "203.0.113.8"),
        (1, 'For="203.0.113.8:40000";proto=https;host=bank.example', "203.0.113.8"),
        (1, 'for=198.51.100.1, for="[2001:db8::1]:443";by=_us', "2001:db8::1"),
        (1, "for=203.0.113.8:40000 ; proto=https", "203.0.113.8"),
        (1, "proto=https;for=[2001:db8::1]", "2001:db8::1"),
        (1, r'for="203.0.\113.8"', "203.0.113.8"),
        (1, "for=unknown", ""),
        (1, "for=_hidden;proto=https", ""),
        (1, "proto=https", ""),
        (1, "203.0.113.8", ""),
        (1, "for=203.0.113.8;for=198.51.100.1", ""),
        (2, "for=198.51.100.1, for=203.0.113.8, for=10.0.0.2", "203.0.113.8"),
        (2, "for=203.0.113.8", PROXY),
    ],
)
def test_the_header_of_rfc_7239_is_read_where_the_operator_says_so(trusted: int, header: str, address: str) -> None:
    asked = Asked(trusted, FORWARDED, forwarded=header, x_forwarded_for="198.51.100.66")

    assert asked.address == address
    assert asked.client.ignored == ("X-Forwarded-For" if address == PROXY else None)


@pytest.mark.parametrize("header", [X_FORWARDED_FOR, FORWARDED])
def test_a_header_that_the_operator_does_not_name_is_not_read(header: ForwardingHeader) -> None:
    other = {"forwarded": "for=203.0.113.8"} if header == X_FORWARDED_FOR else {"x_forwarded_for": "203.0.113.8"}

    asked = Asked(1, header, **other)

    assert asked.address == PROXY
    assert asked.client.ignored is not None


def test_scheme_and_host_come_from_the_trusted_proxies_too() -> None:
    asked = Asked(1, FORWARDED, forwarded="for=203.0.113.8;proto=HTTPS;host=bank.example:8443")
    assert (asked.seen["wsgi.url_scheme"], asked.seen["HTTP_HOST"]) == ("https", "bank.example:8443")

    names = {
        "x_forwarded_for": "203.0.113.8, 10.0.0.2",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "bank.example",
    }
    asked = Asked(2, X_FORWARDED_FOR, **names)
    assert (asked.seen["wsgi.url_scheme"], asked.seen["HTTP_HOST"]) == ("https", "bank.example")

    asked = Asked(1, X_FORWARDED_FOR, x_forwarded_proto="https")
    assert (asked.seen["wsgi.url_scheme"], asked.client.ignored) == ("https", None)

    asked = Asked(0, X_FORWARDED_FOR, **names)
    assert (asked.seen["wsgi.url_scheme"], asked.seen["HTTP_HOST"]) == ("http", "inside")


@pytest.mark.parametrize(("scheme", "host"), [("javascript", "a/b"), ("ws", "a b"), ("", "")])
def test_a_scheme_or_host_that_is_none_changes_nothing(scheme: str, host: str) -> None:
    asked = Asked(1, X_FORWARDED_FOR, x_forwarded_for="203.0.113.8", x_forwarded_proto=scheme, x_forwarded_host=host)

    assert (asked.seen["wsgi.url_scheme"], asked.seen["HTTP_HOST"]) == ("http", "inside")


@pytest.mark.parametrize("peer", ["", "unix"])
def test_a_client_at_a_unix_socket_is_not_known(peer: str) -> None:
    assert Asked(0, X_FORWARDED_FOR, peer=peer).client.address is None


anything = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)
pieces = st.lists(
    st.sampled_from(['"', "\\", ",", ";", "=", " ", "for=", "for=1.2.3.4", "for=1.2.3.4;x=", "x", "[::1]", '"a"']),
    max_size=8,
).map("".join)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(anything, pieces), st.sampled_from(["for=203.0.113.8", 'for="[2001:db8::9]:443";proto=https;by="_us"'])
)
def test_no_client_can_hide_what_a_proxy_writes_behind_its_header(sent: str, written: str) -> None:
    """A quoted string that the client begins would contain what the proxy appends."""
    asked = Asked(1, FORWARDED, forwarded=f"{sent}, {written}")

    assert asked.address in {"203.0.113.8", "2001:db8::9", ""}


@settings(max_examples=100, deadline=None)
@given(st.one_of(anything, pieces))
def test_no_client_can_hide_what_two_proxies_write_behind_its_header(sent: str) -> None:
    asked = Asked(2, X_FORWARDED_FOR, x_forwarded_for=f"{sent}, 203.0.113.8, 10.0.0.2")

    assert asked.address == "203.0.113.8"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_reading_never_fails(text: str) -> None:
    read_address(text)
    parse_forwarded(text)
