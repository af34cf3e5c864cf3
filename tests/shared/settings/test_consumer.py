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


def test_webhooks_go_to_public_addresses_unless_networks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_consumer_settings().webhook_networks == ()

    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "10.20.0.0/16, fd12::/64")

    assert [str(each) for each in read_consumer_settings().webhook_networks] == ["10.20.0.0/16", "fd12::/64"]


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "localhost", "10.0.0.0/8;fd00::/8"])
def test_what_is_no_list_of_networks_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", text)

    assert set(problems(read_consumer_settings)) == {"WEBHOOK_ALLOWED_NETWORKS"}
