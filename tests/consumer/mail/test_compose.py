"""What a mail looks like to its reader: composed, then parsed as a mailbox does."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import compat32, default
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from jinja2 import TemplateNotFound
from markupsafe import escape

from consumer.mail.client import Envelope
from consumer.mail.compose import compose
from consumer.task import Mail, Undeliverable
from shared.links import sign, verification_link

SENDER = Address("Signup", "noreply", "example.org")
UID = UUID("6f1c0f4e-4e39-4be1-9a53-2f4b7f0d9c11")
LINK = verification_link("https://example.org", 2**63 - 1, sign(["x" * 32], 2**63 - 1, "alice@example.com"))
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]

NAMES = {
    "plain": "Alice Adams",
    "a comma": "Adams, Alice",
    "quotes": 'Alice "Al" Adams',
    "a backslash": "Alice \\ Adams",
    "an address": "<alice@evil.example>",
    "parentheses": "Alice (Adams)",
    "accents": "José Núñez, Jr.",
    "four bytes": "Alice 😀",
    "right to left": "שלום עולם",
    "right to left, Arabic": "مرحبا بالعالم",
    "an override of direction": "Alice\u202eecila",
    "Chinese": "王小明",
    "joined emoji": "\U0001f469\u200d\U0001f680",
    "markup": '<b>Alice</b> & "Bob\'s"',
    "a template": "{{ link }} {% raw %}",
    "an encoded word": "=?utf-8?q?Alice?=",
}
LONG_NAMES = {
    "long": "x" * 100,
    "long, with commas": "x, " * 33 + "x",
    "long, with accents and commas": "é, " * 33 + "x",
    "long and Chinese": "王小明" * 33,
    "long, of four bytes": "😀" * 100,
    "very long": "Ä name " * 150 + "x",
}


def verify_mail(name: str = "Alice Adams", recipient: str = "alice@example.com") -> Mail:
    return Mail(recipient, name, "Verify your email address", "verify_email", {"link": LINK, "username": "alice_1"})


def welcome_mail(name: str = "Alice Adams") -> Mail:
    return Mail("alice@example.com", name, "Welcome", "welcome_email", {"username": "alice_1"})


def composed(mail: Mail | None = None, *, uid: UUID = UID, sender: Address = SENDER) -> Envelope:
    return compose(mail or verify_mail(), uid, sender)


def parsed(envelope: Envelope) -> EmailMessage:
    return message_from_bytes(envelope.content, policy=default)


def part(message: EmailMessage, kind: str) -> str:
    found = message.get_body((kind,))
    assert found is not None
    return str(found.get_content())


def readers(message: EmailMessage) -> list[tuple[str, str]]:
    return [(address.display_name, address.addr_spec) for address in message["To"].addresses]


# ---- both parts


def test_a_mail_has_a_text_part_and_after_it_the_html_part() -> None:
    message = parsed(composed())

    assert message.get_content_type() == "multipart/alternative"
    assert [each.get_content_type() for each in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize("kind", ["plain", "html"])
def test_each_part_of_the_verification_mail_holds_the_whole_link(kind: str) -> None:
    text = part(parsed(composed()), kind)

    assert (LINK if kind == "plain" else escape(LINK)) in text


def test_the_link_stands_alone_on_its_line_of_the_text_part() -> None:
    assert LINK in part(parsed(composed()), "plain").splitlines()


@pytest.mark.parametrize("mail", [verify_mail(), welcome_mail()], ids=lambda mail: mail.template)
def test_each_part_names_the_account(mail: Mail) -> None:
    message = parsed(composed(mail))

    assert ["alice_1" in part(message, kind) for kind in ("plain", "html")] == [True, True]


@pytest.mark.parametrize("name", [*NAMES.values(), *LONG_NAMES.values()], ids=[*NAMES, *LONG_NAMES])
def test_the_name_arrives_in_the_text_as_it_is_and_in_html_escaped(name: str) -> None:
    message = parsed(composed(welcome_mail(name)))

    assert part(message, "plain").startswith(f"Welcome, {name},\r\n")
    assert f"Welcome, {escape(name)}</h1>" in part(message, "html")


@pytest.mark.parametrize("name", LONG_NAMES.values(), ids=LONG_NAMES)
def test_no_line_is_longer_than_smtp_allows(name: str) -> None:
    lines = composed(welcome_mail(name)).content.split(b"\r\n")

    assert max(map(len, lines)) <= 78


def test_all_line_ends_are_those_of_smtp() -> None:
    content = composed(welcome_mail("Alice\u2028Adams")).content

    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")


# ---- headers


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_name_and_the_address_arrive_in_the_header(name: str) -> None:
    message = parsed(composed(verify_mail(name)))

    assert readers(message) == [(name, "alice@example.com")]
    assert message.keys() == HEADERS


@pytest.mark.parametrize("name", LONG_NAMES.values(), ids=LONG_NAMES)
def test_a_long_name_stays_one_recipient(name: str) -> None:
    content = composed(verify_mail(name)).content

    # Python's newer parser leaves blanks between the words of such a name, so the older one judges the text.
    raw = message_from_bytes(content, policy=compat32)["To"]
    assert str(make_header(decode_header(raw))) == f"{name} <alice@example.com>"
    assert len(message_from_bytes(content, policy=default)["To"].addresses) == 1


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_without_a_name_the_address_stands_alone(name: str) -> None:
    assert readers(parsed(composed(verify_mail(name)))) == [("", "alice@example.com")]


@pytest.mark.parametrize(
    "name",
    [
        "=?utf-8?q?x=0d=0aBcc=3a_eve=40evil=2Eexample?=",
        "=?utf-8?q?x=0aBcc=3a?= é",
        "=?utf-8?b?eA0KQmNjOiBldmU=?=",
        '"=?utf-8?q?x=0d=0aBcc=3a_eve?="',
        "=?iso-8859-1?q?x=0d=0a=0d=0aText?=",
    ],
)
def test_a_header_hidden_in_the_name_as_an_encoded_word_becomes_none(name: str) -> None:
    content = composed(verify_mail(name)).content
    message = message_from_bytes(content, policy=compat32)

    assert message.keys() == HEADERS
    assert str(make_header(decode_header(message["To"]))) == f"{name} <alice@example.com>"


@pytest.mark.parametrize(
    "name", ["Alice\r\nBcc: eve@evil.example", "Alice\nBcc: eve", "Alice\rBcc: eve", "\n", "A\x0bB", "A\x00B", "A\x85B"]
)
def test_a_name_with_a_control_character_is_undeliverable(name: str) -> None:
    with pytest.raises(Undeliverable):
        composed(verify_mail(name))


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.com\r\nBcc: eve@evil.example",
        "alice@example.com\nRCPT TO:<eve@evil.example>",
        "alice\r@example.com",
        "alice@example.com, eve@evil.example",
        "alice@example.com eve@evil.example",
        "alice@example.com>",
        "Alice <alice@example.com>",
        "=?utf-8?q?alice=0d=0aBcc=3a?=@example.com",
        "alice",
        "alice@",
        "@example.com",
        "a@b@example.com",
        "",
        " ",
        "älice@example.com",
        "alice@exämple.com",
        "alice@例え.jp",
    ],
)
def test_an_address_that_is_not_one_ascii_address_is_undeliverable(address: str) -> None:
    with pytest.raises(Undeliverable):
        composed(verify_mail(recipient=address))


def test_the_reason_of_an_undeliverable_mail_holds_no_address() -> None:
    with pytest.raises(Undeliverable) as refused:
        composed(verify_mail(recipient="alice@exämple.com"))

    assert "alice" not in str(refused.value)


def test_the_envelope_has_the_bare_addresses() -> None:
    envelope = composed(verify_mail(recipient=" alice@example.com (comment)"))

    assert (envelope.sender, envelope.recipient) == ("noreply@example.org", "alice@example.com")


@pytest.mark.parametrize("name", ["Signup", "Müller, Söhne & Co.", "A company, with a very long name, " * 4])
def test_the_sender_arrives_with_its_name(name: str) -> None:
    message = message_from_bytes(composed(sender=Address(name, addr_spec="noreply@example.org")).content)

    assert str(make_header(decode_header(message["From"]))) == f"{name} <noreply@example.org>"


def test_every_copy_of_a_message_has_the_same_message_id() -> None:
    other_uid = uuid4()

    first, second, other = (parsed(composed(uid=uid))["Message-ID"] for uid in (UID, UID, other_uid))

    assert (first, second, other) == (f"<{UID}@example.org>", f"<{UID}@example.org>", f"<{other_uid}@example.org>")


@time_machine.travel(datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC), tick=False)
def test_the_date_is_the_present_time() -> None:
    assert parsed(composed())["Date"] == "Tue, 03 Feb 2026 04:05:06 +0000"


def test_the_date_carries_its_zone() -> None:
    sent_at = parsed(composed())["Date"].datetime

    assert abs(datetime.now(UTC) - sent_at) < timedelta(seconds=5)


def test_the_mail_says_that_it_is_automatic() -> None:
    assert parsed(composed())["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize(
    ("template", "values"),
    [("verify_email", {"link": LINK, "username": "alice"}), ("welcome_email", {"username": "alice"})],
)
def test_a_template_fails_rather_than_leaving_a_gap(template: str, values: Mapping[str, Any]) -> None:
    composed(Mail("alice@example.com", "Alice", "S", template, values))

    with pytest.raises(Exception, match="is undefined"):
        composed(Mail("alice@example.com", "Alice", "S", template, {}))


def test_templates_are_looked_for_in_each_folder_in_turn(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "mine.txt").write_text(folder.name)
        (folder / "mine.html").write_text('{% extends "layout.html" %}{% block content %}{{ name }}{% endblock %}')
    (second / "welcome_email.txt").write_text("ours")
    mail = Mail("alice@example.com", "Alice", "Hello", "mine", {})

    found = [
        part(parsed(compose(each, UID, SENDER, (first, second))), "plain").strip() for each in (mail, welcome_mail())
    ]

    assert found == ["first", "ours"]
    with pytest.raises(TemplateNotFound):
        compose(replace(mail, template="nowhere"), UID, SENDER, (first, second))
