"""The stand-ins speak as the images do whose names they have: what those document, and what compose.yaml relies on."""

import json
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.compose_proof.engine import Engine
from tests.compose_proof.stand_ins import named_images
from tests.waiting import wait_until

DOCUMENTED: dict[str, dict[str, Any]] = {
    "postgres": {
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "StopSignal": "SIGINT",
        "Volumes": {"/var/lib/postgresql": {}},
        "ExposedPorts": {"5432/tcp": {}},
    },
    "redis": {
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["redis-server"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/data",
        "ExposedPorts": {"6379/tcp": {}},
    },
    "mailpit": {"Entrypoint": ["/mailpit"], "ExposedPorts": {"1025/tcp": {}, "8025/tcp": {}}},
    "python": {"Entrypoint": None, "Cmd": ["python3"]},
}
"""From the Dockerfiles of docker-library/postgres, docker-library/redis, axllent/mailpit and docker-library/python."""

MAIL = "From: A <a@example.com>\r\nTo: B <b@example.com>\r\nSubject: Hello\r\nMessage-ID: <1@x>\r\n\r\nHi\r\n"
POSTGRES = {"POSTGRES_USER": "ada", "POSTGRES_PASSWORD": "it's secret", "POSTGRES_DB": "engine"}


@contextmanager
def running(engine: Engine, image: str, *arguments: str, **variables: str) -> Iterator[str]:
    """Run an image and return the container's name."""
    options = [f"--env={name}={value}" for name, value in variables.items()]
    name = engine.docker("run", "--detach", *options, named_images()[image], *arguments).stdout.strip()
    try:
        yield name
    finally:
        engine.docker("rm", "--force", "--volumes", name)


def inside(engine: Engine, container: str, *command: str) -> tuple[int, str]:
    """Run a command in a container; return its exit code and what it said."""
    done = engine.docker("exec", container, *command, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def address(engine: Engine, container: str) -> str:
    return engine.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container).stdout.strip()


@pytest.mark.parametrize("image", sorted(DOCUMENTED))
def test_an_image_is_described_as_documented(engine: Engine, image: str) -> None:
    [described] = json.loads(engine.docker("image", "inspect", named_images()[image]).stdout)

    found = {key: described["Config"].get(key) for key in DOCUMENTED[image]}

    assert found == DOCUMENTED[image]


def test_postgres_makes_the_account_the_password_and_the_database_that_it_is_given(engine: Engine) -> None:
    with running(engine, "postgres", **POSTGRES) as container:
        ready = ("pg_isready", "--host=127.0.0.1", "--username=ada", "--dbname=engine")
        wait_until(lambda: inside(engine, container, *ready)[0] == 0, 60, "PostgreSQL")
        over_tcp = f"host={address(engine, container)} user=ada dbname=engine"
        query = "SELECT current_user, current_database(), current_setting('server_encoding')"
        password = POSTGRES["POSTGRES_PASSWORD"]

        refused = inside(engine, container, "psql", f"{over_tcp} password=wrong", "-Atc", query)
        let_in = inside(engine, container, "env", f"PGPASSWORD={password}", "psql", over_tcp, "-Atc", query)
        locally = inside(engine, container, "psql", "--username=ada", "--dbname=engine", "-Atc", query)
        data = inside(engine, container, "sh", "-c", "echo $PGDATA; ls $PGDATA/PG_VERSION; id -u postgres")

    assert (refused[0], "password authentication failed" in refused[1]) == (2, True)
    assert let_in == locally == (0, "ada|engine|UTF8")
    assert data == (0, "/var/lib/postgresql/18/docker\n/var/lib/postgresql/18/docker/PG_VERSION\n999")


def test_postgres_refuses_to_start_without_a_password(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--user=postgres", named_images()["postgres"], check=False)

    assert (done.returncode, "superuser password is not specified" in done.stderr) == (1, True)


def test_postgres_keeps_what_is_there(engine: Engine) -> None:
    """Also after a crash, and with another password in its environment, which a cluster that is there does not take."""
    psql = ("psql", "--username=ada", "--dbname=engine", "-Atc")
    with running(engine, "postgres", **POSTGRES) as container:
        wait_until(lambda: inside(engine, container, *psql, "CREATE TABLE IF NOT EXISTS t ()")[0] == 0, 60, "a table")
        wait_until(lambda: inside(engine, container, "pg_isready", "--host=127.0.0.1")[0] == 0, 60, "PostgreSQL")
        engine.kill_9(container)
        engine.docker("start", container)
        wait_until(lambda: inside(engine, container, *psql, "TABLE t")[0] == 0, 60, "the table")


def test_redis_takes_options_and_answers_over_the_network(engine: Engine) -> None:
    with running(engine, "redis", "--appendonly", "yes") as container:
        wait_until(lambda: inside(engine, container, "redis-cli", "-e", "ping") == (0, "PONG"), 30, "Redis")
        elsewhere = inside(engine, container, "redis-cli", "-e", "-h", address(engine, container), "ping")
        option = inside(engine, container, "redis-cli", "config", "get", "appendonly")
        where = inside(engine, container, "sh", "-c", "pwd; ls /data; id -u redis")

    assert elsewhere == (0, "PONG")
    assert option == (0, "appendonly\nyes")
    assert where == (0, "/data\nappendonlydir\n999")


def test_mailpit_takes_mails_and_shows_them(engine: Engine) -> None:
    with running(engine, "mailpit") as container:
        wait_until(lambda: inside(engine, container, "/mailpit", "readyz")[0] == 0, 30, "Mailpit")
        host = address(engine, container)
        with engine.network():
            with smtplib.SMTP(host, 1025, timeout=10) as smtp:
                smtp.sendmail("a@example.com", ["b@example.com"], MAIL)
            page = httpx.get(f"http://{host}:8025/api/v1/messages").json()
            number = page["messages"][0]["ID"]
            raw = httpx.get(f"http://{host}:8025/api/v1/message/{number}/raw").text

    assert page["total"] == 1
    assert page["messages"][0] == {
        "ID": number,
        "MessageID": "1@x",
        "From": {"Name": "A", "Address": "a@example.com"},
        "To": [{"Name": "B", "Address": "b@example.com"}],
        "Subject": "Hello",
    }
    assert raw.endswith("Hi\r\n")


def test_mailpit_s_health_command_fails_where_no_mailpit_runs(engine: Engine) -> None:
    assert engine.docker("run", "--rm", named_images()["mailpit"], "readyz", check=False).returncode == 1


def test_python_has_what_the_dockerfile_calls(engine: Engine) -> None:
    lines = "python -m venv --without-pip /tmp/venv && python -m pip --python /tmp/venv/bin/python --version && id -u"

    done = engine.docker("run", "--rm", named_images()["python"], "sh", "-c", lines)

    assert done.stdout.splitlines()[-1] == "0"
