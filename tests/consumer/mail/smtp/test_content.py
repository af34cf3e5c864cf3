"""What is sent is what arrives."""

import pytest

from consumer.mail.client import Envelope
from consumer.model.outcomes import Accepted
from embedded.mail.catcher import MailCatcher
from tests.consumer.mail.smtp.sending import MAIL, Open, lease


@pytest.mark.parametrize(
    "content",
    [
        b".\r\n",
        b"..\r\n.a\r\n...\r\n",
        b"text\r\n.\r\nRCPT TO:<eve@example.com>\r\n",
        b"a" * 998 + b"\r\n",
        b"." * 990 + b"\r\n",
        b"\r\n\r\n",
        bytes(range(128, 256)) + b"\r\n",
        (b"x" * 76 + b"\r\n") * 20_000,
    ],
    ids=["a dot", "dots", "an end", "the longest line", "a line of dots", "empty lines", "8 bit", "1.5 MB"],
)
def test_every_byte_arrives(mailbox: MailCatcher, mailer: Open, content: bytes) -> None:
    outcome = mailer(mailbox.smtp_port).send(Envelope(MAIL.sender, MAIL.recipient, content), lease())

    assert outcome == Accepted()
    assert [mail.raw for mail in mailbox.mails()] == [content]


def test_a_missing_line_end_is_added(mailbox: MailCatcher, mailer: Open) -> None:
    mailer(mailbox.smtp_port).send(Envelope(MAIL.sender, MAIL.recipient, b"text"), lease())

    assert [mail.raw for mail in mailbox.mails()] == [b"text\r\n"]
