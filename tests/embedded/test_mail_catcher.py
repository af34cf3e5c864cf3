"""The mail server that keeps every mail, and the failures that it can simulate."""

import smtplib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest

from embedded.mail.catcher import MailCatcher
from embedded.mail.folder import MailFolder
from embedded.mail.server import Security
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program

ROOT = Path(__file__).parents[2]


def a_mail(recipient: str = "ann@example.com") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = "Grüße"
    mail["From"] = "bob@example.com"
    mail["To"] = recipient
    mail.set_content("Look: http://example.com/a?b=1&c=2\n.a line that begins with a dot\n")
    mail.add_alternative("<p>Look</p>", subtype="html")
    return mail


@contextmanager
def client(port: int, timeout: float = 5.0) -> Iterator[smtplib.SMTP]:
    """A client whose socket is closed whatever the server did."""
    smtp = smtplib.SMTP(timeout=timeout)
    try:
        code, words = smtp.connect(LOOPBACK, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, words)
        yield smtp
        if smtp.sock is not None:
            smtp.quit()
    finally:
        smtp.close()


def send(port: int, recipient: str = "ann@example.com", timeout: float = 5.0) -> None:
    with client(port, timeout) as smtp:
        smtp.send_message(a_mail(recipient))


def answer_of(mailbox: MailCatcher, fault: str, recipient: str = "ann@example.com") -> object:
    """Send a mail under the fault and return the server's code, or the kind of silence."""
    mailbox.set_fault(fault)
    try:
        send(mailbox.smtp_port, recipient, timeout=0.5)
    except smtplib.SMTPRecipientsRefused as refusal:
        return refusal.recipients[recipient][0]
    except smtplib.SMTPResponseException as refusal:
        return refusal.smtp_code
    except smtplib.SMTPServerDisconnected as silence:
        return "timeout" if "timed out" in str(silence) else "closed"
    except TimeoutError:
        return "timeout"
    return "accepted"


def test_a_mail_is_kept_as_it_came(mailbox: MailCatcher) -> None:
    send(mailbox.smtp_port)

    [mail] = mailbox.wait_for()
    assert (mail.sender, mail.recipients, mail.subject) == ("bob@example.com", ("ann@example.com",), "Grüße")
    assert mail.links == ["http://example.com/a?b=1&c=2"]
    assert ".a line that begins with a dot" in mail.text.splitlines()
    assert mail.html.strip() == "<p>Look</p>"
    assert "X-Envelope" not in mail.message


def test_mails_are_listed_in_the_order_of_their_arrival(mailbox: MailCatcher) -> None:
    with client(mailbox.smtp_port) as smtp:
        for number in range(20):
            smtp.send_message(a_mail(f"user{number}@example.com"))

    assert [mail.recipients[0] for mail in mailbox.mails()] == [f"user{number}@example.com" for number in range(20)]


def test_waiting_for_a_certain_mail_returns_it_alone(mailbox: MailCatcher) -> None:
    send(mailbox.smtp_port, "ann@example.com")
    send(mailbox.smtp_port, "eve@example.com")

    [found] = mailbox.wait_for(lambda mail: "eve@example.com" in mail.recipients)

    assert found.recipients == ("eve@example.com",)


def test_a_wait_that_times_out_shows_what_arrived(mailbox: MailCatcher) -> None:
    send(mailbox.smtp_port)

    with pytest.raises(TimeoutError, match=r"2 mail\(s\).*there are 1, the last: 'Grüße' to \['ann@example\.com'\]"):
        mailbox.wait_for(2, timeout=0.05)


@pytest.mark.parametrize(
    ("fault", "answer", "kept"),
    [
        ("greet-421", 421, 0),
        ("greet-hang", "timeout", 0),
        ("mail-550", 550, 0),
        ("mail-hang", "timeout", 0),
        ("rcpt-451", 451, 0),
        ("rcpt-550", 550, 0),
        ("rcpt-hang", "timeout", 0),
        ("data-451", 451, 0),
        ("data-550", 550, 0),
        ("data-421", 421, 0),
        ("data-hang", "timeout", 0),
        ("drop-before-data", "closed", 0),
        ("drop-after-accept", "closed", 1),
        ("quit-hang", "timeout", 1),
        ("slow:0.01", "accepted", 1),
        ("drip", "timeout", 0),
    ],
)
def test_a_fault_is_answered_as_its_name_says(mailbox: MailCatcher, fault: str, answer: object, kept: int) -> None:
    assert answer_of(mailbox, fault) == answer
    assert len(mailbox.mails()) == kept


def test_a_fault_may_concern_one_recipient_alone(mailbox: MailCatcher) -> None:
    assert answer_of(mailbox, "rcpt-550:eve@example.com", "eve@example.com") == 550
    assert answer_of(mailbox, "data-451:eve@example.com", "eve@example.com") == 451
    assert answer_of(mailbox, "rcpt-550:eve@example.com", "ann@example.com") == "accepted"


def test_several_faults_work_together(mailbox: MailCatcher) -> None:
    assert answer_of(mailbox, "slow:0.01\nmail-451") == 451


def test_a_fault_ends_when_it_is_switched_off(mailbox: MailCatcher) -> None:
    with client(mailbox.smtp_port) as smtp:
        mailbox.set_fault("mail-451")
        with pytest.raises(smtplib.SMTPSenderRefused):
            smtp.send_message(a_mail())
        mailbox.set_fault(None)
        smtp.send_message(a_mail())

    assert len(mailbox.mails()) == 1


@pytest.mark.parametrize("fault", ["rcpt-250", "nonsense", "slow:", "slow:-1", "slow:soon"])
def test_an_unknown_fault_is_refused(mailbox: MailCatcher, fault: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        mailbox.set_fault(fault)


def test_a_login_is_asked_for(tmp_path: Path) -> None:
    catcher = MailCatcher(tmp_path, security=Security(login=("bob", "secret")))
    catcher.start()
    try:
        with client(catcher.smtp_port) as smtp:
            with pytest.raises(smtplib.SMTPSenderRefused):
                smtp.send_message(a_mail())
            with pytest.raises(smtplib.SMTPAuthenticationError):
                smtp.login("bob", "wrong")
            smtp.login("bob", "secret")
            smtp.send_message(a_mail())
    finally:
        catcher.stop()

    assert len(catcher.mails()) == 1


def test_a_catcher_starts_again_on_its_ports_with_its_mails(tmp_path: Path) -> None:
    catcher = MailCatcher(tmp_path)
    catcher.start()
    ports = catcher.smtp_port, catcher.http_port
    send(catcher.smtp_port)
    with client(catcher.smtp_port) as smtp:
        catcher.stop()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtp.noop()

    with pytest.raises(OSError, match="refused"):
        send(catcher.smtp_port)

    catcher.start()
    send(catcher.smtp_port)
    catcher.stop()

    assert (catcher.smtp_port, catcher.http_port) == ports
    assert len(catcher.mails()) == 2


def test_a_given_port_that_is_taken_is_an_error(mailbox: MailCatcher, tmp_path: Path) -> None:
    late = MailCatcher(tmp_path, smtp_port=mailbox.smtp_port, http_port=free_port())

    with pytest.raises(OSError, match="in use"):
        late.start()


def test_a_process_keeps_its_mails_when_it_is_killed(tmp_path: Path) -> None:
    mails, port = MailFolder(tmp_path / "mails"), free_port()
    argv = [sys.executable, "-m", "embedded.mail.catcher", "--folder", mails.folder, "--smtp-port", port]
    command = Command("mail", [*map(str, argv), "--http-port", str(free_port())], {}, ROOT, tmp_path / "log")
    program = Program(command)

    def takes_mails() -> bool:
        try:
            with client(port):
                return True
        except OSError:
            return False

    for already_there in range(2):
        program.start()
        program.wait_ready(takes_mails)
        send(port)

        assert len(mails.mails()) == already_there + 1

        program.kill()

    program.start()
    program.wait_ready(takes_mails)

    assert program.stop() == 0
    assert [mail.recipients for mail in mails.mails()] == [("ann@example.com",)] * 2
