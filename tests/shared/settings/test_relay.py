"""The settings that the relay alone has."""

import pytest

from shared.settings.relay import read_relay_settings
from tests.shared.settings.reading import GOOD

pytestmark = pytest.mark.usefixtures("good_environment")


def test_the_relay_listens_where_the_database_is_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_relay_settings().listen_url == GOOD["DATABASE_URL"]

    monkeypatch.setenv("OUTBOX_LISTEN_URL", "postgres://direct/bank")

    assert read_relay_settings().listen_url == "postgresql://direct/bank"


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:9100", ("127.0.0.1", 9100)), ("[::1]:9100", ("::1", 9100))])
def test_the_metrics_address_is_a_host_and_a_port(
    text: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_METRICS_ADDRESS", text)

    assert read_relay_settings().metrics_address == address
