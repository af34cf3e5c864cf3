"""SMTP_URL and SMTP_HELO_NAME."""

import pytest

from shared.settings.consumer import read_consumer_settings
from shared.settings.smtp_server import SmtpServer

pytestmark = pytest.mark.usefixtures("good_environment")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://host", SmtpServer("smtp", "host", 25)),
        ("smtp://host:1025", SmtpServer("smtp", "host", 1025)),
        ("smtps://host", SmtpServer("smtps", "host", 465)),
        ("smtp+starttls://me:p%40ss%3A@host", SmtpServer("smtp+starttls", "host", 587, "me", "p@ss:")),
        ("smtp://m%C3%A4x:p\u00e4ss@host", SmtpServer("smtp", "host", 25, "m\u00e4x", "p\u00e4ss")),
    ],
)
def test_smtp_url_says_where_and_how(url: str, server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", url)

    assert read_consumer_settings().smtp_server == server


def test_smtp_helo_name_is_a_domain_or_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_consumer_settings().smtp_helo_name is None
    for name in ("mail.example.org", "localhost", "a-b.c_d", "[192.0.2.1]", "[IPv6:2001:db8::1]"):
        monkeypatch.setenv("SMTP_HELO_NAME", name)
        assert read_consumer_settings().smtp_helo_name == name
