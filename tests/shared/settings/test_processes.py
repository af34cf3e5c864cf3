"""The settings of API, relay and consumer: what is missing or malformed is named, and no value is shown."""

import os

import pytest

from shared.errors import SettingsError
from shared.settings.api import read_api_settings
from shared.settings.consumer import read_consumer_settings
from shared.settings.postgresql_url import read_database_url
from shared.settings.relay import read_relay_settings
from tests.shared.settings.reading import GOOD, KEY, Read, problems

pytestmark = pytest.mark.usefixtures("good_environment")


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (read_api_settings, {"DATABASE_URL", "SECRET_KEY"}),
        (read_relay_settings, {"DATABASE_URL"}),
        (read_consumer_settings, {"DATABASE_URL", "SECRET_KEY", "MAIL_FROM"}),
        (read_database_url, {"DATABASE_URL"}),
    ],
)
def test_all_missing_settings_are_named_at_once(read: Read, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        monkeypatch.delenv(name)

    assert set(problems(read)) == names


def test_the_relay_needs_neither_key_nor_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.delenv("MAIL_FROM")

    read_relay_settings()


API = read_api_settings
RELAY = read_relay_settings
CONSUMER = read_consumer_settings


@pytest.mark.parametrize("value", ["", " ", "nonsense"])
@pytest.mark.parametrize(
    ("read", "name"),
    [
        (API, "DATABASE_URL"),
        (API, "SECRET_KEY"),
        (API, "SIGNUP_MAIL_DELAY_SECONDS"),
        (API, "TRUSTED_PROXIES"),
        (API, "MAILBOX_URL"),
        (API, "SIGNUP_RATE_LIMIT"),
        (API, "VERIFY_RATE_LIMIT"),
        (API, "RESEND_RATE_LIMIT"),
        (API, "OPS_LOGIN_RATE_LIMIT"),
        (API, "RATE_LIMIT_EXEMPT"),
        (API, "CORS_ALLOWED_ORIGINS"),
        (API, "UNVERIFIED_DAYS"),
        (API, "PASSWORD_MIN_LENGTH"),
        (RELAY, "DATABASE_URL"),
        (RELAY, "OUTBOX_LISTEN_URL"),
        (RELAY, "RQ_REDIS_URL"),
        (RELAY, "OUTBOX_PUBLISH_LEASE_SECONDS"),
        (RELAY, "OUTBOX_RUN_LEASE_SECONDS"),
        (RELAY, "OUTBOX_BATCH_SIZE"),
        (RELAY, "OUTBOX_POLL_SECONDS"),
        (RELAY, "OUTBOX_KEEP_DONE_DAYS"),
        (RELAY, "OUTBOX_METRICS_ADDRESS"),
        (RELAY, "UNVERIFIED_DAYS"),
        (CONSUMER, "DATABASE_URL"),
        (CONSUMER, "RQ_REDIS_URL"),
        (CONSUMER, "SMTP_URL"),
        (CONSUMER, "SMTP_TIMEOUT_SECONDS"),
        (CONSUMER, "MAIL_FROM"),
        (CONSUMER, "BASE_URL"),
        (CONSUMER, "SECRET_KEY"),
        (CONSUMER, "VERIFY_EMAIL_MINUTES"),
        (CONSUMER, "OUTBOX_RUN_LEASE_SECONDS"),
        (CONSUMER, "OUTBOX_BACKOFF_SCALE"),
        (CONSUMER, "WORKER_CONCURRENCY"),
    ],
)
def test_an_empty_or_malformed_value_is_refused_by_name(
    read: Read, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert set(problems(read)) == {name}


@pytest.mark.parametrize(
    ("read", "name", "value"),
    [
        (RELAY, "DATABASE_URL", "mysql://host/bank"),
        (RELAY, "DATABASE_URL", "postgresql://host/bank?nonsense=1"),
        (RELAY, "DATABASE_URL", "postgresql://user:hun@ter2@host/bank"),
        (RELAY, "DATABASE_URL", "postgresql://user:12/hunter2@host/bank"),
        (RELAY, "DATABASE_URL", "postgresql://host/bank?connect_timeout=soon"),
        (API, "DATABASE_URL", "postgresql://host/bank?sslmode=maybe"),
        (RELAY, "OUTBOX_LISTEN_URL", "postgresql://host:http/bank"),
        (RELAY, "RQ_REDIS_URL", "redis://"),
        (RELAY, "RQ_REDIS_URL", "redis://host/first"),
        (RELAY, "RQ_REDIS_URL", "http://host"),
        (RELAY, "RQ_REDIS_URL", "redis://host/0?db=abc"),
        (RELAY, "RQ_REDIS_URL", "redis://host/0?nonsense=1"),
        (CONSUMER, "RQ_REDIS_URL", "unix:///run/redis.sock?db=abc"),
        (RELAY, "RQ_KEY_PREFIX", "a b"),
        (RELAY, "RQ_KEY_PREFIX", "rq\n"),
        (RELAY, "OUTBOX_BATCH_SIZE", "0"),
        (RELAY, "OUTBOX_BATCH_SIZE", "1.5"),
        (RELAY, "OUTBOX_POLL_SECONDS", "0"),
        (RELAY, "OUTBOX_POLL_SECONDS", "nan"),
        (RELAY, "OUTBOX_POLL_SECONDS", "inf"),
        (RELAY, "OUTBOX_KEEP_DONE_DAYS", "-1"),
        (RELAY, "UNVERIFIED_DAYS", "-1"),
        (API, "UNVERIFIED_DAYS", "nan"),
        (API, "UNVERIFIED_DAYS", "1e9"),
        (RELAY, "OUTBOX_METRICS_ADDRESS", "127.0.0.1"),
        (RELAY, "OUTBOX_METRICS_ADDRESS", "127.0.0.1:99999"),
        (RELAY, "OUTBOX_METRICS_ADDRESS", "http://127.0.0.1:9100"),
        (CONSUMER, "SMTP_URL", "smtp://"),
        (CONSUMER, "SMTP_URL", "smtp://host:99999"),
        (CONSUMER, "SMTP_URL", "smtp://user@host"),
        (CONSUMER, "SMTP_URL", "smtp://host/path"),
        (CONSUMER, "SMTP_URL", "smtp://user:p%FCssword@host"),
        (CONSUMER, "SMTP_URL", "smtp://us%FCr:password@host"),
        (CONSUMER, "SMTP_URL", "smtp://user:pass%00word@host"),
        (CONSUMER, "SMTP_HELO_NAME", ""),
        (CONSUMER, "SMTP_HELO_NAME", "mail example.org"),
        (CONSUMER, "SMTP_HELO_NAME", "-mail.example.org"),
        (CONSUMER, "SMTP_HELO_NAME", "mail.example.org\r\nRSET"),
        (CONSUMER, "SMTP_HELO_NAME", "m\u00e4il.example.org"),
        (CONSUMER, "SMTP_HELO_NAME", "192.0.2.1]"),
        (CONSUMER, "SMTP_HELO_NAME", "a" * 256),
        (CONSUMER, "MAIL_FROM", "a@b@c"),
        (CONSUMER, "MAIL_FROM", "=?utf-8?q?x?=@bank.example"),
        (CONSUMER, "MAIL_FROM", "Bank <no-reply@bank.example>\nBcc: eve@example.com"),
        (CONSUMER, "BASE_URL", "ftp://host"),
        (CONSUMER, "BASE_URL", "http://host?query"),
        (CONSUMER, "BASE_URL", "http://host\n"),
        (CONSUMER, "BASE_URL", "http://host/ "),
        (CONSUMER, "BASE_URL", "http://exa mple.com"),
        (RELAY, "DATABASE_URL", "postgresql://host/bank\n"),
        (RELAY, "RQ_REDIS_URL", "redis://host/0\n"),
        (CONSUMER, "SMTP_URL", "smtp://user:password\n@host"),
        (CONSUMER, "SECRET_KEY", "k" * 31),
        (CONSUMER, "SECRET_KEY", f"{KEY},short"),
        (CONSUMER, "SECRET_KEY", f"{KEY},"),
        (CONSUMER, "SECRET_KEY", os.fsdecode(b"\xff" * 32)),
        (CONSUMER, "WORKER_CONCURRENCY", "0"),
        (API, "SIGNUP_MAIL_DELAY_SECONDS", "-1"),
        (API, "PASSWORD_MIN_LENGTH", "7"),
        (API, "PASSWORD_MIN_LENGTH", "65"),
        (API, "SIGNUP_RATE_LIMIT", "0 per minute"),
        (API, "SIGNUP_RATE_LIMIT", "30 per minute; 500 per day"),
        (API, "SIGNUP_RATE_LIMIT", "10 per fortnight"),
        (API, "RATE_LIMIT_EXEMPT", "10.0.0.1/8"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(
    read: Read, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert set(problems(read)) == {name}


def test_an_error_never_repeats_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hunter2@host/bank")
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("SMTP_URL", "smtp://user:hunter2@host:port")

    with pytest.raises(SettingsError) as caught:
        read_consumer_settings()

    assert "hunter2" not in str(caught.value)


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@host/bank")
    monkeypatch.setenv("SMTP_URL", "smtp://user:hunter2@host")

    shown = repr((read_api_settings(), read_relay_settings(), read_consumer_settings()))

    assert "hunter2" not in shown
    assert KEY not in shown


def test_api_and_relay_agree_how_long_an_account_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_api_settings().unverified_days == read_relay_settings().unverified_days == 7

    monkeypatch.setenv("UNVERIFIED_DAYS", "0.5")

    assert read_api_settings().unverified_days == read_relay_settings().unverified_days == 0.5


def test_several_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", f"{'a' * 32}, {'b' * 40}")

    assert read_api_settings().secret_keys == ("a" * 32, "b" * 40)
