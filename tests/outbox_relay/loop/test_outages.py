"""An outage spends nothing. `make proof` runs the same with 48 hours."""

import pytest

from embedded.mail.catcher import MailCatcher
from tests.proof import outages
from tests.proof.outages import MESSAGES, Outage

HOURS = 0.25


@pytest.mark.parametrize("outage", [outages.mail_server_away, outages.redis_away, outages.postgresql_away])
def test_an_outage_spends_no_attempt_and_everything_is_delivered_after_it(
    outage: "object", database_url: str, redis_url: str, mailbox: MailCatcher
) -> None:
    assert callable(outage)

    ended: Outage = outage(database_url, redis_url, mailbox.smtp_port, HOURS)

    assert (ended.attempts_spent, ended.done, len(mailbox.mails())) == (0, MESSAGES, MESSAGES)
    assert ended.tries >= 30
    assert ended.resumed_within_seconds <= 60
