"""How many verification mails may be sent."""

import pytest

from shared.settings.api import read_api_settings
from shared.settings.mail_limits import MailLimits
from tests.shared.settings.reading import problems

pytestmark = pytest.mark.usefixtures("good_environment")


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "many", "", "1001", "٣"])
@pytest.mark.parametrize("name", ["MAILBOX_MAILS_PER_HOUR", "MAILBOX_MAILS_OF_CLIENT"])
def test_a_mail_limit_that_no_mail_or_nothing_fits_in_is_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)

    [problem] = problems(read_api_settings)[name]
    assert "write a whole number from 1 to 1000, or 'off' for no limit" in problem
    assert ("would let no mail out" in problem) == (text in {"0", "00"})


def test_mail_limits_are_read_with_the_days_that_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"MAILBOX_MAILS_PER_HOUR": "off", "MAILBOX_MAILS": "7", "TOTAL_MAILS_PER_HOUR": "20000"}
    for name, text in {**texts, "UNVERIFIED_DAYS": "0.5"}.items():
        monkeypatch.setenv(name, text)

    assert read_api_settings().mail_limits == MailLimits(mailbox_an_hour=None, mailbox=7, total_an_hour=20_000, days=1)
