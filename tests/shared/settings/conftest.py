import pytest

from tests.shared.settings.reading import GOOD


@pytest.fixture
def good_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what every process needs."""
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
