"""Which URLs can be an endpoint."""

import pytest

from shared.webhooks.urls import UnusableUrlError, WebhookUrl, parse_webhook_url


@pytest.mark.parametrize(
    ("url", "parts", "host_header"),
    [
        ("https://hooks.example.com", WebhookUrl("https", "hooks.example.com", 443, "/"), "hooks.example.com"),
        ("https://Hooks.Example.com:443/a?b=c", WebhookUrl("https", "hooks.example.com", 443, "/a?b=c"), None),
        ("https://a.example.:8443/x%20y", WebhookUrl("https", "a.example.", 8443, "/x%20y"), "a.example:8443"),
        ("http://10.0.0.7:8080/hook", WebhookUrl("http", "10.0.0.7", 8080, "/hook"), "10.0.0.7:8080"),
        ("https://[FD12::7]/", WebhookUrl("https", "fd12::7", 443, "/"), "[fd12::7]"),
    ],
)
def test_a_url_is_taken_apart(url: str, parts: WebhookUrl, host_header: str | None) -> None:
    assert parse_webhook_url(url) == parts
    assert parts.host_header == (host_header or parts.host)


@pytest.mark.parametrize(
    "url",
    [
        *["", "hooks.example.com", "//hooks.example.com/", "ftp://hooks.example.com/", "https://", "https:///path"],
        *["https://user@example.com/", "https://user:secret@example.com/", "https://@example.com/"],
        *[
            "https://example.com/#part",
            "https://example.com/#",
            "https://example.com\\@127.0.0.1/",
            "https://ex ample/",
        ],
        *["https://example.com/\n", "https://example.com/\x00", "https://bücher.example/", "https://example.com:0/"],
        *[
            "https://example.com:25/",
            "https://example.com:1023/",
            "https://example.com:65536/",
            "https://example.com:x/",
        ],
        *["https://[fe80::1%25eth0]/", "https://[::1", "https://[v1.x]/", "https://-a.example/", "https://a..example/"],
        *["https://%6cocalhost/", "https://" + "a" * 64 + ".example/", "https://" + "a." * 127 + "example/"],
        "https://example.com/" + "a" * 2000,
    ],
)
def test_any_other_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(UnusableUrlError) as caught:
        parse_webhook_url(url)
    assert "secret" not in str(caught.value)


def test_neither_text_nor_origin_shows_the_path() -> None:
    url = parse_webhook_url("https://hooks.example.com:8443/a-token?b=another")

    assert url.origin == "https://hooks.example.com:8443"
    assert "token" not in repr(url)
