import os
from collections.abc import Callable

import pytest

from shared.errors import SettingsError
from shared.settings.api import read_api_settings
from shared.settings.consumer import read_consumer_settings
from shared.settings.mail_limits import MailLimits
from shared.settings.postgresql_url import read_database_url
from shared.settings.relay import read_relay_settings
from shared.settings.smtp_server import SmtpServer

KEY = "k" * 32
GOOD = {"DATABASE_URL": "postgresql://user@host/bank", "SECRET_KEY": KEY, "MAIL_FROM": "Bank <no-reply@bank.example>"}

Read = Callable[[], object]


@pytest.fixture(autouse=True)
def good_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def problems(read: Read) -> dict[str, list[str]]:
    with pytest.raises(SettingsError) as caught:
        read()
    return caught.value.problems


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


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_each_spelling_of_the_database_url_is_understood(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://user@one:1,two:2/bank?target_session_attrs=read-write")

    assert read_database_url() == "postgresql://user@one:1,two:2/bank?target_session_attrs=read-write"


def test_the_relay_listens_where_the_database_is_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_relay_settings().listen_url == GOOD["DATABASE_URL"]

    monkeypatch.setenv("OUTBOX_LISTEN_URL", "postgres://direct/bank")

    assert read_relay_settings().listen_url == "postgresql://direct/bank"


def test_api_and_relay_agree_how_long_an_account_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_api_settings().unverified_days == read_relay_settings().unverified_days == 7

    monkeypatch.setenv("UNVERIFIED_DAYS", "0.5")

    assert read_api_settings().unverified_days == read_relay_settings().unverified_days == 0.5


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:9100", ("127.0.0.1", 9100)), ("[::1]:9100", ("::1", 9100))])
def test_the_metrics_address_is_a_host_and_a_port(
    text: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_METRICS_ADDRESS", text)

    assert read_relay_settings().metrics_address == address


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://host", SmtpServer("smtp", "host", 25)),
        ("smtp://host:1025", SmtpServer("smtp", "host", 1025)),
        ("smtps://host", SmtpServer("smtps", "host", 465)),
        ("smtp+starttls://me:p%40ss%3A@host", SmtpServer("smtp+starttls", "host", 587, "me", "p@ss:")),
        ("smtp://m%C3%A4x:p\u00e4ss@host", SmtpServer("smtp", "host", 25, "m\u00e4x", "p\u00e4ss")),
    ],
)
def test_smtp_url_says_where_and_how(url: str, server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", url)

    assert read_consumer_settings().smtp_server == server


def test_smtp_helo_name_is_a_domain_or_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_consumer_settings().smtp_helo_name is None
    for name in ("mail.example.org", "localhost", "a-b.c_d", "[192.0.2.1]", "[IPv6:2001:db8::1]"):
        monkeypatch.setenv("SMTP_HELO_NAME", name)
        assert read_consumer_settings().smtp_helo_name == name


def test_several_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", f"{'a' * 32}, {'b' * 40}")

    assert read_api_settings().secret_keys == ("a" * 32, "b" * 40)


def test_a_step_longer_than_a_whole_send_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RUN_LEASE_SECONDS", "30")
    monkeypatch.setenv("SMTP_TIMEOUT_SECONDS", "20.5")

    assert set(problems(read_consumer_settings)) == {"SMTP_TIMEOUT_SECONDS"}


def test_a_short_lease_shortens_the_default_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RUN_LEASE_SECONDS", "3")

    settings = read_consumer_settings()

    assert settings.smtp_timeout_seconds == settings.send_deadline_seconds == 2.0


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


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "many", "", "1001", "٣"])
@pytest.mark.parametrize("name", ["MAILBOX_MAILS_PER_HOUR", "MAILBOX_MAILS_OF_CLIENT"])
def test_a_mail_limit_that_no_mail_or_nothing_fits_in_is_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)

    [problem] = problems(API)[name]
    assert "write a whole number from 1 to 1000, or 'off' for no limit" in problem
    assert ("would let no mail out" in problem) == (text in {"0", "00"})


def test_mail_limits_are_read_with_the_days_that_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"MAILBOX_MAILS_PER_HOUR": "off", "MAILBOX_MAILS": "7", "TOTAL_MAILS_PER_HOUR": "20000"}
    for name, text in {**texts, "UNVERIFIED_DAYS": "0.5"}.items():
        monkeypatch.setenv(name, text)

    assert read_api_settings().mail_limits == MailLimits(mailbox_an_hour=None, mailbox=7, total_an_hour=20_000, days=1)
