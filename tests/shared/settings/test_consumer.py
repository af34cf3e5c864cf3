"""The time limits of the consumer, which depend on each other."""

import pytest

from shared.settings.consumer import read_consumer_settings
from tests.shared.settings.reading import problems

pytestmark = pytest.mark.usefixtures("good_environment")


def test_a_step_longer_than_a_whole_send_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RUN_LEASE_SECONDS", "30")
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "20.5")

    assert set(problems(read_consumer_settings)) == {"SMTP_TIMEOUT_SECONDS"}


def test_a_short_lease_shortens_the_default_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RUN_LEASE_SECONDS", "3")

    settings = read_consumer_settings()

    assert settings.smtp_timeout_seconds == settings.send_deadline_seconds == 2.0
