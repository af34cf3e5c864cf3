"""Both mails as they lie in a mailbox: composed, sent over SMTP, and parsed from what the server kept."""

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.policy import compat32
from html.parser import HTMLParser
from uuid import uuid4

import pytest

from consumer.mail.client import Mailer
from consumer.mail.compose import compose
from consumer.model.lease import Lease
from consumer.model.outcomes import Accepted
from consumer.task import Mail, Undeliverable
from embedded.mail.catcher import MailCatcher
from embedded.mail.folder import CaughtMail
from embedded.programs.ports import LOOPBACK
from shared.links import sign, verification_link
from shared.settings.smtp_server import SmtpServer

SENDER = Address("Müller & Söhne", "no-reply", "example.org")
UID = uuid4()
LINK = verification_link("https://example.org", 2**63 - 1, sign(["k" * 32], 2**63 - 1, "ada@example.com"))
KINDS = {"verify_email": {"link": LINK, "username": "ada_1"}, "welcome_email": {"username": "ada_1"}}
NAMES = [
    "Ada Lovelace",
    "José Núñez, Jr.",
    "王小明",
    "שלום עולם",
    'A "quoted" <b>name</b>',
    "x" * 100,
    "é, " * 33 + "x",
]


class Elements(HTMLParser):
    """The elements of a mail's HTML part and its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def received(mailbox: MailCatcher, name: str = "Ada Lovelace", kind: str = "verify_email") -> CaughtMail:
    mail = Mail("ada@example.com", name, "Grüße: bitte bestätigen", kind, KINDS[kind])
    mailer = Mailer(SmtpServer("smtp", LOOPBACK, mailbox.smtp_port), step_seconds=5, helo_name="example.org")
    try:
        envelope = compose(mail, UID, SENDER)
        assert mailer.send(envelope, Lease.start(60)) == Accepted()
    finally:
        mailer.close()
    [caught] = mailbox.mails()
    assert caught.raw == envelope.content
    return caught


@pytest.mark.parametrize("name", NAMES)
def test_name_of_any_script_arrives_in_header_and_in_both_parts(mailbox: MailCatcher, name: str) -> None:
    mail = received(mailbox, name, "welcome_email")

    header = message_from_bytes(mail.raw, policy=compat32)["To"]
    assert str(make_header(decode_header(header))) == f"{name} <ada@example.com>"
    assert len(mail.message["To"].addresses) == 1
    assert name in mail.text
    assert name in Elements(mail.html).text


def test_subject_and_sender_arrive_in_their_script(mailbox: MailCatcher) -> None:
    mail = received(mailbox)

    assert mail.subject == "Grüße: bitte bestätigen"
    [sender] = mail.message["From"].addresses
    assert (sender.display_name, sender.addr_spec) == ("Müller & Söhne", "no-reply@example.org")


def test_both_parts_hold_the_whole_link_and_nothing_else_to_open(mailbox: MailCatcher) -> None:
    mail = received(mailbox)

    assert mail.links == [LINK]
    assert {each["href"] for each in Elements(mail.html).named("a")} == {LINK}


def test_welcome_mail_leads_nowhere(mailbox: MailCatcher) -> None:
    mail = received(mailbox, kind="welcome_email")

    assert mail.links == []
    assert Elements(mail.html).named("a") == []


@pytest.mark.parametrize("kind", KINDS)
def test_html_needs_nothing_that_mail_clients_take_away(mailbox: MailCatcher, kind: str) -> None:
    found = Elements(received(mailbox, kind=kind).html)

    assert {tag for tag, _ in found.elements} <= {
        "html", "head", "meta", "title", "style", "body", "div", "table", "tr", "td", "h1", "p", "a", "strong"
    }  # fmt: skip
    # Layout tables are announced as such to nobody, and every text has its colour and font at hand.
    assert {each.get("role") for each in found.named("table")} == {"presentation"}
    assert all("color:" in (each["style"] or "") for each in [*found.named("h1"), *found.named("a")])
    assert not any(name in attributes for _, attributes in found.elements for name in ("src", "background", "onclick"))


@pytest.mark.parametrize("kind", KINDS)
def test_dark_mode_changes_every_colour_that_is_set(mailbox: MailCatcher, kind: str) -> None:
    html = received(mailbox, kind=kind).html

    found = Elements(html)
    # The button keeps its colours: white on blue is readable on both.
    coloured = [
        attributes
        for tag, attributes in found.elements
        if re.search(r"(?<!-)color:|background-color:#f", attributes.get("style") or "")
        and "#ffffff;text-decoration" not in (attributes["style"] or "")
        and "#2250cc;border-radius" not in (attributes["style"] or "")
    ]
    assert coloured
    assert all(attributes.get("class") for attributes in coloured)
    for name in {name for attributes in coloured for name in (attributes["class"] or "").split()}:
        assert f".{name} {{" in html
    assert {each["name"]: each["content"] for each in found.named("meta") if each.get("name")}["color-scheme"] == (
        "light dark"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_nobody_on_the_way_has_a_reason_to_change_what_was_signed(mailbox: MailCatcher, name: str, kind: str) -> None:
    mail = received(mailbox, name, kind)

    assert mail.raw.isascii()
    assert max(map(len, mail.raw.split(b"\r\n"))) <= 78
    assert mail.raw.count(b"\n") == mail.raw.count(b"\r\n") == mail.raw.count(b"\r")
    assert not any(line.endswith((b" ", b"\t")) for line in mail.raw.split(b"\r\n"))
    encodings = [part["Content-Transfer-Encoding"] for part in mail.message.iter_parts()]
    assert encodings == ["quoted-printable", "quoted-printable"]
    headers = mail.message.keys()
    assert len(headers) == len(set(headers))
    assert {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version"} <= set(headers)
    assert mail.message.defects == []


@pytest.mark.parametrize("kind", KINDS)
def test_answer_to_what_somebody_did_offers_no_list_to_leave(mailbox: MailCatcher, kind: str) -> None:
    message = received(mailbox, kind=kind).message

    assert not any(name.lower().startswith("list-") for name in message)
    assert message["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("field", ["name", "address", "subject"])
def test_no_field_becomes_a_header(field: str, end: str) -> None:
    hostile = f"x{end}Bcc: eve@evil.example"
    fields = {"name": "Ada", "address": "ada@example.com", "subject": "Hello", field: hostile}

    with pytest.raises(Undeliverable):
        compose(
            Mail(fields["address"], fields["name"], fields["subject"], "welcome_email", {"username": "ada_1"}),
            UID,
            SENDER,
        )


def test_line_end_in_a_value_stays_in_its_part(mailbox: MailCatcher) -> None:
    mail = Mail("ada@example.com", "Ada", "Hello", "welcome_email", {"username": "x\r\n\r\n--=_outbox--\r\n.\r\ny"})
    mailer = Mailer(SmtpServer("smtp", LOOPBACK, mailbox.smtp_port), step_seconds=5, helo_name="example.org")
    mailer.send(compose(mail, UID, SENDER), Lease.start(60))
    mailer.close()

    [caught] = mailbox.mails()
    assert [part.get_content_type() for part in caught.message.iter_parts()] == ["text/plain", "text/html"]
    assert [line for line in caught.text.splitlines() if line in {"--=_outbox--", "."}] == ["--=_outbox--", "."]
