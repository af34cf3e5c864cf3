"""The PostgreSQL URLs that we take, and the values in them that we refuse, held against libpq."""

from pathlib import Path

import psycopg
import pytest
from environs import ValidationError
from psycopg.conninfo import conninfo_to_dict

from shared.settings.postgresql_url import check_postgresql_parameters, read_database_url

INTEGERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "tcp_user_timeout")
WORDS = ("sslmode", "target_session_attrs", "channel_binding", "gssencmode", "load_balance_hosts")


def check(query: str) -> None:
    check_postgresql_parameters(conninfo_to_dict(f"postgresql://host/bank?{query}"))


@pytest.mark.parametrize(
    "query",
    [
        *(f"{name}=soon" for name in INTEGERS),
        *(f"{name}=9999999999" for name in INTEGERS),
        *(f"{name}=nonsense" for name in WORDS),
        *(f"{name}=" for name in (*INTEGERS, *WORDS)),
        "port=http",
        "port=65536",
        "port=1,http",
    ],
)
def test_what_libpq_refuses_when_it_connects_is_refused(query: str) -> None:
    with pytest.raises(ValidationError, match=query.partition("=")[0]) as caught:
        check(query)

    value = query.partition("=")[2]
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "connect_timeout=3&keepalives=1&keepalives_idle=-1&tcp_user_timeout=0&connect_timeout=%205",
        "sslmode=verify-full&target_session_attrs=read-write&channel_binding=require&gssencmode=disable",
        "load_balance_hosts=random",
        "port=5432,5433",
        "application_name=x",
    ],
)
def test_what_libpq_takes_is_taken(query: str, tmp_path: Path) -> None:
    check(query)

    with pytest.raises(psycopg.OperationalError) as caught:
        # Nobody listens there; whatever is wrong with an option is said before.
        psycopg.connect(f"postgresql:///bank?{query.replace('5432,5433', '5432')}", host=str(tmp_path))
    assert "invalid" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_each_spelling_of_the_database_url_is_understood(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://user@one:1,two:2/bank?target_session_attrs=read-write")

    assert read_database_url() == "postgresql://user@one:1,two:2/bank?target_session_attrs=read-write"
