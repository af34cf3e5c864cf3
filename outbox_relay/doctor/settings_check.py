"""Checks the environment: malformed values, short secrets, leases that are too short, and proxies."""

import os
from collections.abc import Callable, Iterator
from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok, skipped, warning
from outbox_relay.loop.pacing import POP_TO_CLAIM_SECONDS
from shared.errors import SettingsError
from shared.settings.api import HOW_TO_TRUST_PROXIES, is_behind_tls, read_api_settings, read_ops_token
from shared.settings.consumer import read_consumer_settings
from shared.settings.gunicorn import check_server_settings
from shared.settings.relay import RelaySettings
from shared.settings.sentinel_url import CONNECTION_CLASS, is_sentinel_url

_OF_OTHERS: Final = ("SECRET_KEY", "MAIL_FROM")
"""Variables that API and worker need. The operator's shell need not have them."""


def check_settings_of_others() -> Iterator[Finding]:
    """Check the variables of API and worker. One that is not set in this shell is no fault."""
    problems = {
        **_problems(read_api_settings),
        **_problems(read_consumer_settings),
        **_problems(read_ops_token),
        **_problems(check_server_settings),
    }
    for name, texts in sorted(problems.items()):
        if name in os.environ:
            yield fault("settings", f"{name} {' '.join(texts)}", f"fix {name}; the process that reads it cannot start")
    absent = [name for name in _OF_OTHERS if name not in os.environ]
    if absent:
        yield skipped("settings", f"not set in this shell, so not checked: {', '.join(absent)}")
    elif not problems:
        yield ok("settings", "API, relay and worker can start with them")


def check_proxies() -> Finding:
    """Check TRUSTED_PROXIES: the API speaks no TLS, so that a BASE_URL with https:// means a proxy in front of it."""
    if is_behind_tls() and os.environ.get("TRUSTED_PROXIES", "0") == "0":
        return warning(
            "rate limits",
            "BASE_URL is https://, so that there is a proxy in front, and TRUSTED_PROXIES is 0: its headers are not"
            " trusted. All clients look like the proxy, and count as one for the limits of requests and of mails",
            HOW_TO_TRUST_PROXIES,
        )
    return ok("rate limits", "each client has its own limit, according to the settings in this shell")


def check_connection_class(settings: RelaySettings) -> Iterator[Finding]:
    """Check, behind Sentinel, whether RQ's own commands can read RQ_REDIS_URL."""
    if not is_sentinel_url(settings.redis_url):
        return
    given = os.environ.get("RQ_CONNECTION_CLASS")
    if given is None:
        yield skipped("settings", f"RQ_CONNECTION_CLASS is not set in this shell; workers need {CONNECTION_CLASS}")
    elif given != CONNECTION_CLASS:
        yield warning(
            "settings",
            "RQ_CONNECTION_CLASS is not our own, and RQ_REDIS_URL names sentinels",
            f"set it to {CONNECTION_CLASS}, unless yours understands such a URL",
        )


def check_leases(settings: RelaySettings) -> Finding:
    """Check whether the publish lease is longer than the time from pop to claim."""
    if settings.publish_lease_seconds <= POP_TO_CLAIM_SECONDS:
        return fault(
            "leases",
            f"OUTBOX_PUBLISH_LEASE_SECONDS is {settings.publish_lease_seconds:g}, and a job may be popped"
            f" {POP_TO_CLAIM_SECONDS:g} s before its claim",
            "raise it, best to the default of 30: otherwise popped jobs are looked up in Redis all the time",
        )
    return ok("leases", f"publish {settings.publish_lease_seconds:g} s, run {settings.run_lease_seconds:g} s")


def _problems(read: Callable[[], object]) -> dict[str, list[str]]:
    try:
        read()
    except SettingsError as exc:
        return exc.problems
    return {}
