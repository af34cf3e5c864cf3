"""How many requests one client may send."""

import pytest

from shared.settings.api import read_api_settings

pytestmark = pytest.mark.usefixtures("good_environment")


def test_rate_limits_have_defaults_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = read_api_settings().rate_limits
    assert {name: str(limit) for name, limit in limits.by_name.items()} == {
        "signup": "30 per 1 minute",
        "verify": "60 per 1 minute",
        "resend": "10 per 1 minute",
        "ops_login": "10 per 1 minute",
    }
    assert [str(network) for network in limits.exempt] == ["127.0.0.0/8", "::1/128"]

    monkeypatch.setenv("SIGNUP_RATE_LIMIT", "off")
    monkeypatch.setenv("VERIFY_RATE_LIMIT", "5/second")
    monkeypatch.setenv("RATE_LIMIT_EXEMPT", "none")

    limits = read_api_settings().rate_limits
    assert sorted(limits.by_name) == ["ops_login", "resend", "verify"]
    assert (limits.by_name["verify"].amount, limits.by_name["verify"].get_expiry()) == (5, 1)
    assert limits.exempt == ()
