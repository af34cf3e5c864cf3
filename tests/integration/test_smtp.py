"""Handing a mail in: what each answer, silence and accident of a mail server means for the message."""

import gc
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from consumer import smtp
from consumer.lease import Lease
from consumer.outcomes import Accepted, Failed, LeaseOver, Outage
from consumer.smtp import Envelope, Mailer
from embedded.mail_catcher import MailCatcher
from embedded.mail_folder import MailFolder
from embedded.mail_server import MailServer, Security
from embedded.ports import LOOPBACK, free_port
from shared.settings import SmtpSecurity, SmtpServer
from tests.scripted_mail_server import CONTENT, GREETING, HANG_UP, PIPELINING, ScriptedMailServer

MAIL = Envelope("signup@example.org", "alice@example.com", b"Subject: Hi\r\n\r\nHello\r\n")
LOGIN = ("signup", 'pass word: "!"')
LONG = 60.0
QUICK = 0.3

Open = Callable[..., Mailer]

Answers = dict[str, str]

both_manners = pytest.mark.parametrize("manner", [{}, PIPELINING], ids=["one command at a time", "several at once"])
"""What a server offers makes no difference to what its answers mean."""


class OverAtTheDot(Lease):
    """What a process sees that stood still directly before the last dot."""

    def is_over(self) -> bool:
        return True


@pytest.fixture(scope="module", autouse=True)
def no_socket_is_left_open() -> Iterator[None]:
    """A socket that is left to the garbage collector is a warning, and so an error, here at the latest."""
    yield
    gc.collect()


@pytest.fixture
def mailer() -> Iterator[Open]:
    """Make mailers, which are closed in the end."""
    opened: list[Mailer] = []

    def open_(
        port: int,
        *,
        host: str = LOOPBACK,
        security: SmtpSecurity = "smtp",
        login: tuple[str, str] | None = None,
        step_seconds: float = 5.0,
        helo_name: str = "example.org",
    ) -> Mailer:
        server = SmtpServer(security, host, port, *(login or ()))
        opened.append(Mailer(server, step_seconds=step_seconds, helo_name=helo_name))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def lease(seconds: float = LONG) -> Lease:
    return Lease.start(seconds)


@contextmanager
def takes(at_least: float, at_most: float) -> Iterator[None]:
    started = monotonic()
    yield
    seconds = monotonic() - started

    assert at_least <= seconds <= at_most


# ---- answers


def test_an_accepted_mail_is_accepted(mailbox: MailCatcher, mailer: Open) -> None:
    assert mailer(mailbox.smtp_port).send(MAIL, lease()) == Accepted()

    [mail] = mailbox.mails()
    assert (mail.sender, mail.recipients, mail.raw) == (MAIL.sender, (MAIL.recipient,), MAIL.content)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("rcpt-450", Failed("refused: 450 fault switched on for rcpt")),
        ("rcpt-452", Failed("refused: 452 fault switched on for rcpt")),
        ("rcpt-550", Failed("refused: 550 fault switched on for rcpt", is_permanent=True)),
        ("rcpt-553", Failed("refused: 553 fault switched on for rcpt", is_permanent=True)),
        ("data-451", Failed("refused: 451 fault switched on for data")),
        ("data-421", Failed("refused: 421 fault switched on for data")),
        ("data-552", Failed("refused: 552 fault switched on for data", is_permanent=True)),
        ("data-554", Failed("refused: 554 fault switched on for data", is_permanent=True)),
    ],
)
def test_a_refusal_of_this_mail_is_its_failure(mailbox: MailCatcher, mailer: Open, fault: str, outcome: Failed) -> None:
    mailbox.set_fault(fault)

    assert mailer(mailbox.smtp_port).send(MAIL, lease()) == outcome
    assert mailbox.mails() == []


@both_manners
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("450 later", Failed("refused: 450 later")),
        ("554 no", Failed("refused: 554 no", is_permanent=True)),
    ],
)
def test_a_refusal_of_the_data_command_is_the_mails_failure(
    mailer: Open, manner: Answers, answer: str, outcome: Failed
) -> None:
    with ScriptedMailServer({**manner, "DATA": answer}) as server:
        assert mailer(server.port).send(MAIL, lease()) == outcome


@both_manners
@pytest.mark.parametrize(
    ("step", "answer", "shown"),
    [
        ("RCPT", "what?", "-1 ?"),
        ("RCPT", "999 no", "999 no"),
        ("RCPT", "354 go on", "354 go on"),
        ("DATA", "<html>500", "-1 l>500"),
        ("DATA", "250 OK", "250 OK"),
    ],
)
def test_an_answer_before_the_mail_that_is_neither_yes_nor_no_is_an_outage(
    mailer: Open, manner: Answers, step: str, answer: str, shown: str
) -> None:
    with ScriptedMailServer({**manner, step: answer}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert outcomes == [Outage(f"the mail server's answer makes no sense: {shown}", reached=True)] * 2
    assert (len(server.said), server.contents) == (2, [])


@both_manners
@pytest.mark.parametrize("step", ["RCPT", "DATA"])
def test_a_refusal_stays_one_when_the_server_hangs_up_behind_it(mailer: Open, manner: Answers, step: str) -> None:
    with ScriptedMailServer({**manner, step: f"550 no {HANG_UP}"}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert outcomes == [Failed("refused: 550 no", is_permanent=True)] * 2


def test_a_refusal_does_not_repeat_the_address(mailer: Open) -> None:
    with ScriptedMailServer({"RCPT": "550-5.1.1 <Alice@Example.com>: no\n550 user alice."}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert outcome == Failed("refused: 550 5.1.1 <[address]>: no user [address].", is_permanent=True)


@both_manners
@pytest.mark.parametrize("answer", ["250-first\n250 second", "251 will forward"])
def test_a_recipient_may_be_accepted_in_other_words(mailer: Open, manner: Answers, answer: str) -> None:
    with ScriptedMailServer({**manner, "RCPT": answer}) as server:
        assert mailer(server.port).send(MAIL, lease()) == Accepted()


@both_manners
@pytest.mark.parametrize("answer", ["200 hm", "354 more", "what?", "999 no"])
def test_an_answer_that_is_none_may_mean_acceptance(mailer: Open, manner: Answers, answer: str) -> None:
    with ScriptedMailServer({**manner, CONTENT: answer}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, Failed)
    assert (outcome.is_permanent, outcome.maybe_accepted) == (False, True)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"RCPT": "550 no"}, Failed("refused: 550 no", is_permanent=True)),
        ({"RCPT": "450 later", "DATA": "503 no recipient"}, Failed("refused: 450 later")),
        ({"RCPT": f"550 no {HANG_UP}"}, Failed("refused: 550 no", is_permanent=True)),
        ({"RCPT": "421 closing"}, Outage("the mail server is closing: 421 closing", reached=True)),
        ({"RCPT": HANG_UP}, Outage("the mail server went away at RCPT TO (SMTPServerDisconnected)", reached=True)),
        ({"DATA": HANG_UP}, Outage("the mail server went away at RCPT TO (SMTPServerDisconnected)", reached=True)),
        ({"MAIL": "550 no"}, Outage("the mail server refuses our sender (MAIL_FROM): 550 no")),
        ({"MAIL": HANG_UP}, Outage("the mail server went away at MAIL FROM (SMTPServerDisconnected)")),
    ],
)
def test_commands_that_were_sent_together_are_answered_one_by_one(
    mailer: Open, answers: Answers, outcome: Failed | Outage
) -> None:
    with ScriptedMailServer({**PIPELINING, **answers}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert (outcomes, server.contents) == ([outcome] * 2, [])


def test_nobody_gets_a_mail_whose_recipient_was_refused(mailer: Open) -> None:
    with ScriptedMailServer({**PIPELINING, "RCPT": "550 no"}) as server:
        sender = mailer(server.port)
        sender.send(MAIL, lease())
        sender.send(MAIL, lease())

    assert [[line.split()[0].upper() for line in heard] for heard in server.said] == [
        ["EHLO", "MAIL", "RCPT", "DATA"]
    ] * 2
    assert server.contents == []


# ---- silence after the last dot


def test_silence_after_the_dot_may_mean_acceptance(mailbox: MailCatcher, mailer: Open) -> None:
    mailbox.set_fault("data-hang")

    outcome = mailer(mailbox.smtp_port, step_seconds=QUICK).send(MAIL, lease())

    assert outcome == Failed("no answer after the mail was sent (SMTPServerDisconnected)", maybe_accepted=True)


def test_silence_after_the_dot_ends_at_the_deadline(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)
    sender.send(MAIL, lease())
    mailbox.set_fault("data-hang")

    with takes(1.0, 8.0):
        outcome = sender.send(MAIL, lease(3.0))

    assert outcome == Failed("no answer after the mail was sent (SMTPServerDisconnected)", maybe_accepted=True)


def test_a_connection_lost_after_the_dot_may_mean_acceptance(mailbox: MailCatcher, mailer: Open) -> None:
    mailbox.set_fault("drop-after-accept")
    sender = mailer(mailbox.smtp_port)

    outcome = sender.send(MAIL, lease())

    assert outcome == Failed("no answer after the mail was sent (SMTPServerDisconnected)", maybe_accepted=True)
    assert len(mailbox.mails()) == 1
    mailbox.set_fault(None)
    assert sender.send(MAIL, lease()) == Accepted()


# ---- outages


@pytest.mark.parametrize(
    ("fault", "outage"),
    [
        ("greet-421", Outage("cannot connect to the mail server: 421 fault switched on for greet")),
        ("greet-554", Outage("cannot connect to the mail server: 554 fault switched on for greet")),
        ("greet-hang", Outage("cannot connect to the mail server (SMTPServerDisconnected)")),
        ("mail-421", Outage("the mail server refuses our sender (MAIL_FROM): 421 fault switched on for mail")),
        ("mail-451", Outage("the mail server refuses our sender (MAIL_FROM): 451 fault switched on for mail")),
        ("mail-550", Outage("the mail server refuses our sender (MAIL_FROM): 550 fault switched on for mail")),
        ("mail-hang", Outage("the mail server went away at MAIL FROM (SMTPServerDisconnected)")),
        ("rcpt-421", Outage("the mail server is closing: 421 fault switched on for rcpt", reached=True)),
        ("rcpt-hang", Outage("the mail server went away at RCPT TO (SMTPServerDisconnected)", reached=True)),
        ("drop-before-data", Outage("the mail server went away at RCPT TO (SMTPServerDisconnected)", reached=True)),
    ],
)
def test_what_says_nothing_about_the_mail_is_an_outage(
    mailbox: MailCatcher, mailer: Open, fault: str, outage: Outage
) -> None:
    mailbox.set_fault(fault)
    sender = mailer(mailbox.smtp_port, step_seconds=QUICK)

    assert sender.send(MAIL, lease()) == outage
    assert mailbox.mails() == []
    mailbox.set_fault(None)
    assert sender.send(MAIL, lease()) == Accepted()


@pytest.mark.parametrize("answers", [{"EHLO": HANG_UP}, {"EHLO": "421 closing", "HELO": "421 closing"}])
def test_a_server_that_does_not_want_to_talk_is_an_outage(mailer: Open, answers: dict[str, str]) -> None:
    with ScriptedMailServer(answers) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, Outage)
    assert (outcome.reason.partition(" (")[0].partition(":")[0], outcome.reached) == (
        "the mail server refuses to talk",
        False,
    )


def test_garbage_for_a_greeting_is_an_outage(mailer: Open) -> None:
    with ScriptedMailServer({GREETING: "HTTP/1.1 400 Bad Request"}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, Outage)
    assert not outcome.reached


def test_no_server_is_an_outage(mailer: Open) -> None:
    outcome = mailer(free_port()).send(MAIL, lease())

    assert outcome == Outage("cannot connect to the mail server (ConnectionRefusedError)")


@pytest.mark.parametrize("host", ["mail.invalid", "mail..invalid", "x" * 64 + ".invalid", "m\u00e4il\u2024.invalid"])
def test_a_wrong_name_is_an_outage(mailer: Open, host: str) -> None:
    outcome = mailer(25, host=host).send(MAIL, lease(3.0))

    assert isinstance(outcome, Outage)
    assert (outcome.reason.partition(" (")[0], outcome.reached) == ("cannot connect to the mail server", False)


# ---- one deadline


@pytest.mark.parametrize("fault", ["slow:0.4", "drip", "greet-hang", "mail-hang", "rcpt-hang"])
def test_the_whole_send_has_one_deadline(mailbox: MailCatcher, mailer: Open, fault: str) -> None:
    mailbox.set_fault(fault)

    with takes(0.4, 5.0):
        outcome = mailer(mailbox.smtp_port, step_seconds=LONG).send(MAIL, lease(0.75))

    assert isinstance(outcome, Outage)
    assert mailbox.mails() == []


def test_the_deadline_holds_on_a_kept_connection_too(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)
    sender.send(MAIL, lease())
    mailbox.set_fault("mail-hang")

    with takes(0.4, 5.0):
        outcome = sender.send(MAIL, lease(0.75))

    assert isinstance(outcome, Outage)


@pytest.mark.parametrize(
    ("step", "code"), [(GREETING, 220), ("EHLO", 250), ("MAIL", 250), ("RCPT", 250), ("DATA", 354)]
)
def test_the_deadline_holds_for_an_answer_that_drips(mailer: Open, step: str, code: int) -> None:
    answers = {step: f"{code} {'x' * 1000}"}
    with ScriptedMailServer(answers, seconds_per_byte=0.01) as server, takes(0.4, 5.0):
        outcome = mailer(server.port, step_seconds=LONG).send(MAIL, lease(0.75))

    assert isinstance(outcome, Outage)
    assert server.contents == []


def test_without_time_left_nothing_is_tried(mailbox: MailCatcher, mailer: Open) -> None:
    with takes(0, 3.0):
        outcome = mailer(mailbox.smtp_port).send(MAIL, Lease(monotonic() - LONG, LONG))

    assert isinstance(outcome, Outage)
    assert mailbox.mails() == []


def test_nothing_arrives_when_the_lease_is_over_before_the_dot(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)

    outcome = sender.send(MAIL, OverAtTheDot(monotonic(), LONG))

    assert outcome == LeaseOver()
    assert sender.send(MAIL, lease(10.0)) == Accepted()
    assert len(mailbox.mails()) == 1


# ---- the kept connection


def test_the_connection_is_kept_for_the_next_mail(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

    assert outcomes == [Accepted()] * 3
    commands = [[line.split()[0].upper() for line in heard] for heard in server.said]
    assert commands == [["EHLO"] + ["MAIL", "RCPT", "DATA"] * 3]


def test_a_connection_to_a_server_that_takes_several_commands_at_once_is_kept_too(mailer: Open) -> None:
    with ScriptedMailServer(PIPELINING) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

    assert (outcomes, len(server.said), server.contents) == ([Accepted()] * 3, 1, [MAIL.content] * 3)


def test_it_introduces_itself_by_the_given_name(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        mailer(server.port, helo_name="mail.example.org").send(MAIL, lease())

    assert server.said[0][0] == "ehlo mail.example.org"


def test_a_refused_mail_leaves_the_connection_ready_for_the_next(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port)
    mailbox.set_fault(f"rcpt-550:{MAIL.recipient}")
    other = Envelope(MAIL.sender, "bob@example.com", MAIL.content)

    outcomes = [type(sender.send(mail, lease())) for mail in (MAIL, other, MAIL, other)]

    assert outcomes == [Failed, Accepted, Failed, Accepted]
    assert [mail.recipients for mail in mailbox.mails()] == [("bob@example.com",)] * 2


def test_a_connection_that_the_server_dropped_in_between_is_replaced(mailer: Open) -> None:
    with ScriptedMailServer({CONTENT: f"250 OK {HANG_UP}"}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

    assert (outcomes, len(server.contents), len(server.said)) == ([Accepted()] * 3, 3, 3)


def test_a_server_that_was_restarted_in_between_gets_the_next_mail(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port)
    sender.send(MAIL, lease())
    mailbox.stop()
    mailbox.start()

    assert sender.send(MAIL, lease()) == Accepted()


def test_a_connection_that_was_idle_for_long_is_replaced(mailer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "_KEPT_SECONDS", 0.0)
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert (outcomes, len(server.said)) == ([Accepted()] * 2, 2)


def test_closing_waits_for_no_answer(mailbox: MailCatcher, mailer: Open) -> None:
    mailbox.set_fault("quit-hang")
    sender = mailer(mailbox.smtp_port)
    sender.send(MAIL, lease())

    with takes(0, 3.0):
        sender.close()


# ---- content


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


# ---- TLS and login


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates that vouch for themselves, and their keys: of this machine, and of another."""
    openssl = shutil.which("openssl")
    if openssl is None:
        # As for the servers: a laptop may do without, the suite that judges may not.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no openssl on the PATH")
    folder = tmp_path_factory.mktemp("certificates")
    for name, san in (("here", f"IP:{LOOPBACK}"), ("elsewhere", "DNS:mail.example.org"), ("unknown", f"IP:{LOOPBACK}")):
        extensions = (f"subjectAltName={san}", "keyUsage=critical,digitalSignature,keyCertSign")
        subprocess.run(
            [
                *[openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
                *["-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
                *[part for extension in extensions for part in ("-addext", extension)],
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    trusted = [(folder / f"{name}.pem").read_text() for name in ("here", "elsewhere")]
    (folder / "trusted.pem").write_text("".join(trusted))
    return folder


@dataclass(frozen=True)
class SecureServer:
    folder: MailFolder
    smtp_port: int


StartSecure = Callable[..., SecureServer]


@pytest.fixture
def start_secure(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SecureServer]]:
    """Start mail servers with TLS; the certificates `here` and `elsewhere` count as known to the system."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "trusted.pem"))
    started: list[MailServer] = []

    def start(security: SmtpSecurity, certificate: str = "here", login: tuple[str, str] | None = None) -> SecureServer:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / f"{certificate}.pem", certificates / f"{certificate}.key")
        tls = Security(tls_context=context, implicit_tls=security == "smtps", login=login)
        server, port = MailServer(MailFolder(tmp_path / "mail"), tls), free_port()
        server.start(port)
        started.append(server)
        return SecureServer(server.folder, port)

    yield start
    for each in started:
        each.stop()


both_kinds = pytest.mark.parametrize("security", ["smtp+starttls", "smtps"])


@both_kinds
@pytest.mark.parametrize("login", [None, LOGIN])
def test_a_mail_goes_over_tls(
    start_secure: StartSecure, mailer: Open, security: SmtpSecurity, login: tuple[str, str] | None
) -> None:
    server = start_secure(security, login=login)
    sender = mailer(server.smtp_port, security=security, login=login)

    outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert outcomes == [Accepted()] * 2
    assert [mail.raw for mail in server.folder.mails()] == [MAIL.content] * 2


@both_kinds
@pytest.mark.parametrize("certificate", ["elsewhere", "unknown"])
def test_a_wrong_certificate_is_an_outage(
    start_secure: StartSecure, mailer: Open, security: SmtpSecurity, certificate: str
) -> None:
    server = start_secure(security, certificate)

    outcome = mailer(server.smtp_port, security=security).send(MAIL, lease())

    what = "cannot connect to the mail server" if security == "smtps" else "STARTTLS with the mail server failed"
    assert outcome == Outage(f"{what} (SSLCertVerificationError)")
    assert server.folder.mails() == []


@both_kinds
@pytest.mark.parametrize("password", ["wrong", "", "p\u00e4ssword"])
def test_a_wrong_password_is_an_outage(
    start_secure: StartSecure, mailer: Open, security: SmtpSecurity, password: str
) -> None:
    server = start_secure(security, login=LOGIN)

    outcome = mailer(server.smtp_port, security=security, login=(LOGIN[0], password)).send(MAIL, lease())

    assert isinstance(outcome, Outage)
    assert outcome.reason.startswith("the mail server refuses our login (SMTP_URL)")
    assert server.folder.mails() == []


def test_a_login_that_is_refused_for_now_is_an_outage(start_secure: StartSecure, mailer: Open) -> None:
    server = start_secure("smtps", login=LOGIN)
    server.folder.set_fault("auth-454")

    outcome = mailer(server.smtp_port, security="smtps", login=LOGIN).send(MAIL, lease())

    assert outcome == Outage("the mail server refuses our login (SMTP_URL): 454 fault switched on for auth")


def test_a_login_that_the_server_does_not_offer_is_an_outage(mailbox: MailCatcher, mailer: Open) -> None:
    outcome = mailer(mailbox.smtp_port, login=LOGIN).send(MAIL, lease())

    assert outcome == Outage("the mail server refuses our login (SMTP_URL) (SMTPNotSupportedError)")


def test_no_mail_goes_in_the_clear_where_tls_was_asked_for(mailbox: MailCatcher, mailer: Open) -> None:
    outcome = mailer(mailbox.smtp_port, security="smtp+starttls").send(MAIL, lease())

    assert outcome == Outage("STARTTLS with the mail server failed (SMTPNotSupportedError)")
    assert mailbox.mails() == []


def test_a_server_without_tls_where_tls_is_expected_is_an_outage(mailer: Open) -> None:
    with ScriptedMailServer({}) as server, takes(0, 5.0):
        outcome = mailer(server.port, security="smtps", step_seconds=QUICK).send(MAIL, lease())

    assert isinstance(outcome, Outage)


@both_kinds
def test_the_deadline_holds_over_tls(start_secure: StartSecure, mailer: Open, security: SmtpSecurity) -> None:
    server = start_secure(security)
    server.folder.set_fault("rcpt-hang")

    with takes(0.4, 5.0):
        outcome = mailer(server.smtp_port, security=security, step_seconds=LONG).send(MAIL, lease(0.75))

    assert outcome == Outage("the mail server went away at RCPT TO (SMTPServerDisconnected)", reached=True)
