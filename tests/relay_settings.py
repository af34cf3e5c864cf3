"""Settings of a relay that a test runs in its own process."""

from dataclasses import replace
from typing import Any

from rq.defaults import RQ_KEY_PREFIX

from shared.settings import RelaySettings


def relay_settings(database_url: str, redis_url: str, **others: Any) -> RelaySettings:
    """Give the defaults of a relay on these servers, with some of them changed."""
    defaults = RelaySettings(
        database_url=database_url,
        listen_url=database_url,
        redis_url=redis_url,
        key_prefix=RQ_KEY_PREFIX,
        publish_lease_seconds=30,
        run_lease_seconds=60,
        batch_size=1000,
        poll_seconds=1.0,
        keep_done_days=7,
    )
    return replace(defaults, **others)
