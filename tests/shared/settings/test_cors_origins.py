import re

import pytest

from shared.settings.cors_origins import parse_origins


def test_no_site_is_allowed_where_none_is_named() -> None:
    assert parse_origins("none") == ()


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://app.example.com", ("https://app.example.com",)),
        ("https://App.Example.com:443, http://localhost:80", ("https://app.example.com", "http://localhost")),
        ("https://a.example:8443,https://a.example:8443", ("https://a.example:8443",)),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("http://example.com:443", ("http://example.com:443",)),
    ],
)
def test_origins_are_written_as_browsers_send_them(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("*", "holds *, which would let every site's pages"),
        ("https://a.example,*", "holds *, which would let every site's pages"),
        ("https://*.example.com", "holds *, which would let every site's pages"),
        ("null", "holds null, which is the origin of every sandboxed frame"),
        ("app.example.com", "with scheme"),
        ("ftp://example.com", "with scheme"),
        ("https://example.com/", "without a path"),
        ("https://example.com?", "without a path"),
        ("https://user@example.com", "without a path"),
        ("https://example.com:port", "without a path"),
        ("https://[::1", "without a path"),
        ("https://a.example b.example", "without a path"),
        ("https://a.example,", "with scheme"),
        ("https://b\u00fccher.de", "xn--"),
    ],
)
def test_what_is_no_origin_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_origins(text)
