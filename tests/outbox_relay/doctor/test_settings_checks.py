"""`doctor` with the settings of this shell: proxies, variables that are not set, secrets."""

import pytest

from embedded.programs.ports import free_port
from tests.outbox_relay.commands.running import run
from tests.outbox_relay.doctor.installation import Installation, warnings


def test_a_proxy_whose_headers_are_not_believed_is_named(healthy: Installation) -> None:
    healthy.set("BASE_URL", "https://bank.example")
    believed = warnings()
    healthy.set("TRUSTED_PROXIES", "0")

    assert believed == []
    assert any("TRUSTED_PROXIES is 0" in message for message in warnings())


def test_a_forwarding_header_that_nothing_believes_is_named(healthy: Installation) -> None:
    healthy.sql("INSERT INTO ignored_headers VALUES ('Forwarded', now() - interval '2 hours')")
    long_ago = warnings()
    healthy.sql("INSERT INTO ignored_headers VALUES ('X-Forwarded-For', now())")

    assert long_ago == []
    assert any(message.startswith("X-Forwarded-For came with a request") for message in warnings())


def test_what_is_not_set_is_not_called_a_fault(healthy: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "MAIL_FROM", "SMTP_URL"):
        monkeypatch.delenv(name)

    ended = run("doctor")

    assert (ended.exit_code, ended.output.count("skipped")) == (0, 2), ended.output


def test_without_a_database_address_it_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    ended = run("doctor")

    assert (ended.exit_code, "DATABASE_URL" in ended.output) == (2, True)


def test_no_password_is_shown(healthy: Installation) -> None:
    healthy.set("DATABASE_URL", f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x")
    healthy.set("RQ_REDIS_URL", f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    healthy.set("SMTP_URL", f"smtp://u:hunter2@127.0.0.1:{free_port()}")

    assert "hunter2" not in run("doctor").output
