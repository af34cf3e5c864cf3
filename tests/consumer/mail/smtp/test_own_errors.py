"""What goes wrong in our own process is no failed attempt of the mail that it met, and never a copy."""

import errno
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from consumer.dialing import OutOfResourcesError
from consumer.mail.connection import SmtpConnection
from consumer.model.outcomes import Accepted, Failed, Released, RenderFailed
from tests.consumer.mail.smtp.sending import MAIL, Open, lease
from tests.servers.scripted_mail_server import ScriptedMailServer

LACKS = "this worker lacks memory, files or threads"


def raising(error: Exception) -> Callable[..., NoReturn]:
    def raise_it(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise error

    return raise_it


@pytest.mark.parametrize("method", ["ehlo", "mail", "rcpt", "docmd"])
def test_a_lack_of_memory_before_the_dot_gives_the_attempt_back(
    mailer: Open, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port)
        with monkeypatch.context() as patch:
            patch.setattr(SmtpConnection, method, raising(MemoryError()))
            outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

        assert outcomes == [Released(f"{LACKS} (MemoryError)", is_delayed=True)] * 3
        assert sender.send(MAIL, lease()) == Accepted()
    assert len(server.contents) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_a_lack_of_files_is_no_outage_of_the_mail_server(
    mailer: Open, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", raising(OSError(number, "too many")))
            outcome = sender.send(MAIL, lease())

        assert outcome == Released(f"{LACKS} ({OutOfResourcesError.__name__})", is_delayed=True)
        assert sender.send(MAIL, lease()) == Accepted()


def test_a_defect_before_the_dot_is_no_copy(mailer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmtpConnection, "rcpt", raising(RuntimeError("a defect")))
    with ScriptedMailServer({}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert outcome == RenderFailed("RuntimeError while the mail was sent")


def test_after_the_dot_a_lack_of_memory_may_hide_an_acceptance(mailer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmtpConnection, "end_content", raising(MemoryError()))
    with ScriptedMailServer({}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert outcome == Failed("MemoryError after the mail was sent", maybe_accepted=True, is_unanswered=True)
