"""The page that shows caught mails, whose text is not trusted."""

import shutil
import socket
from email.message import EmailMessage

import httpx
import pytest

from embedded.mail.catcher import MailCatcher
from embedded.mail.previews import PREVIEWS
from tests.conftest import absent
from tests.embedded.strangers import AS_ROOT, run_as_stranger

HOSTILE = "<script>alert(1)</script>"


def keep(mailbox: MailCatcher, subject: str = "Hello") -> str:
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["From"] = f'"{HOSTILE}" <eve@example.com>'
    mail.set_content(f"{HOSTILE}\nhttp://example.com/?a=1&b=2\n")
    mail.add_alternative(f"<p>{HOSTILE}</p>", subtype="html")
    return mailbox.keep("eve@example.com", [f"{HOSTILE}@example.com"], mail.as_bytes()).stem


def get(mailbox: MailCatcher, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{mailbox.http_url}{path}", headers=headers, trust_env=False)


def test_an_empty_mailbox_is_shown(mailbox: MailCatcher) -> None:
    answer = get(mailbox, "/")

    assert answer.status_code == 200
    assert "0 mails caught" in answer.text


def test_mails_are_listed_newest_first(mailbox: MailCatcher) -> None:
    keep(mailbox, "the older one")
    keep(mailbox, "the newer one")

    text = get(mailbox, "/").text

    assert 0 < text.index("the newer one") < text.index("the older one")


def test_a_long_list_has_pages(mailbox: MailCatcher) -> None:
    for number in range(101):
        keep(mailbox, f"number {number}.")

    assert "number 0." not in get(mailbox, "/").text
    assert "number 0." in get(mailbox, "/?page=2").text
    assert get(mailbox, "/?page=none").text == get(mailbox, "/").text


@pytest.mark.parametrize("path", ["/", "/mails/{}"])
def test_nothing_in_a_mail_becomes_a_part_of_the_page(mailbox: MailCatcher, path: str) -> None:
    name = keep(mailbox, HOSTILE)

    text = get(mailbox, path.format(name)).text

    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_mail_is_shown_with_its_links_and_a_sandboxed_frame(mailbox: MailCatcher) -> None:
    name = keep(mailbox)

    text = get(mailbox, f"/mails/{name}").text

    assert 'href="http://example.com/?a=1&amp;b=2"' in text
    assert f'<iframe sandbox src="/mails/{name}/html"' in text
    assert "eve@example.com" in text


def test_the_html_part_may_do_nothing_also_outside_its_frame(mailbox: MailCatcher) -> None:
    answer = get(mailbox, f"/mails/{keep(mailbox)}/html")

    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert HOSTILE in answer.text
    assert {"sandbox", "default-src 'none'"} <= set(policy)


def test_the_source_is_plain_text(mailbox: MailCatcher) -> None:
    answer = get(mailbox, f"/mails/{keep(mailbox)}/raw")

    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert HOSTILE in answer.text


def test_a_mail_without_parts_or_with_a_strange_charset_is_shown(mailbox: MailCatcher) -> None:
    bare = mailbox.keep("", [], b"")
    strange = mailbox.keep("a@b.example", [], b"Content-Type: text/plain; charset=klingon\r\n\r\nqapla\r\n")

    assert get(mailbox, "/").status_code == 200
    assert "(no subject)" in get(mailbox, f"/mails/{bare.stem}").text
    assert "qapla" in get(mailbox, f"/mails/{strange.stem}").text


@pytest.mark.parametrize(
    "path", ["/mails/1", "/mails/../fault", "/mails/%2e%2e/fault", "/fault", f"/mails/{'1' * 20}-000001"]
)
def test_what_is_no_mail_is_not_found(mailbox: MailCatcher, path: str) -> None:
    mailbox.set_fault("drip")

    assert get(mailbox, path).status_code == 404


def test_a_foreign_name_for_this_machine_reads_nothing(mailbox: MailCatcher) -> None:
    assert get(mailbox, "/", Host="rebound.example.com").status_code == 403
    assert get(mailbox, "/", Host="localhost:8025").status_code == 200


def test_each_kind_of_mail_has_a_preview(mailbox: MailCatcher) -> None:
    text = get(mailbox, "/").text

    assert set(PREVIEWS) == {"verify_email", "welcome_email"}
    for name in PREVIEWS:
        assert f'href="/previews/{name}"' in text
        assert "ada@example.com" in get(mailbox, f"/previews/{name}").text
        assert "<h1" in get(mailbox, f"/previews/{name}/html").text


def test_a_preview_is_rendered_again_and_not_caught(mailbox: MailCatcher) -> None:
    get(mailbox, "/previews/verify_email")

    assert mailbox.names() == []
    assert get(mailbox, "/previews/layout").status_code == 404


def test_strangers_on_this_machine_do_not_read_the_mails(mailbox: MailCatcher) -> None:
    name = keep(mailbox, "a link is in here")
    if not AS_ROOT:
        pytest.skip("only root can be somebody else")
    curl = shutil.which("curl") or absent("no curl on the PATH")

    for path in ("/", f"/mails/{name}", f"/mails/{name}/raw"):
        answer = run_as_stranger(curl, "-sS", "-i", f"{mailbox.http_url}{path}").stdout
        assert answer.startswith("HTTP/1.0 403 ")
        assert "a link is in here" not in answer


def test_a_client_that_writes_ipv4_addresses_as_ipv6_ones_is_served(mailbox: MailCatcher) -> None:
    with socket.socket(socket.AF_INET6) as line, line.makefile("rb") as answer:
        line.connect(("::ffff:127.0.0.1", mailbox.http_port))
        line.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")

        assert answer.read().startswith(b"HTTP/1.0 200 ")
