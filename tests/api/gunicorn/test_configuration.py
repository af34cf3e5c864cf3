"""The API under gunicorn, with the project's configuration."""

import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic

import httpx
import pytest

from tests.programs.api_service import ALICE, KEY
from tests.programs.gunicorn import END_SECONDS, gunicorn, gunicorn_program
from tests.programs.preloading import Preloaded
from tests.waiting import wait_until

WHOLE = b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def start_with(origin: Preloaded, log: Path, **settings: str) -> tuple[int, str]:
    """Start it with settings that stop it. Return its exit code and output."""
    program = gunicorn_program(origin, log, **settings)
    program.start()
    return program.wait(END_SECONDS), log.read_text()


def test_gunicorn_serves_signups_and_logs_paths_alone(api_origin: Preloaded, database_url: str, tmp_path: Path) -> None:
    log = tmp_path / "gunicorn.log"
    with gunicorn(api_origin, database_url, log) as client:
        signed_up = client.post("/v1/users", json=ALICE)
        client.get("/v1/verify_email", params={"email_id": "1", "secret_code": "sesame"})
        client.get("/v1/nowhere%0Aforged", headers={"Referer": "https://example.com/?sesame"})

    lines = log.read_text()
    assert signed_up.status_code == 201
    assert '"POST /v1/users" 201' in lines
    assert '"GET /v1/verify_email" 404' in lines
    assert '"GET /v1/nowhere%0Aforged" 404' in lines
    assert '"event": "user.signed_up"' in lines
    assert "sesame" not in lines
    assert "alice" not in lines


def test_gunicorn_names_neither_itself_nor_its_version(
    api_origin: Preloaded, database_url: str, tmp_path: Path
) -> None:
    with gunicorn(api_origin, database_url, tmp_path / "gunicorn.log") as client:
        assert client.get("/healthz").headers["Server"] == "outbox-signup"


def test_large_body_without_a_length_is_too_large_through_gunicorn_too(
    api_origin: Preloaded, database_url: str, tmp_path: Path
) -> None:
    with gunicorn(api_origin, database_url, tmp_path / "gunicorn.log") as client:
        response = client.post(
            "/v1/users", content=iter([b" " * 1000] * 1000), headers={"Content-Type": "application/json"}
        )

    assert (response.status_code, response.headers["Content-Type"]) == (413, "application/problem+json")


def test_clients_that_stand_still_hold_no_thread_for_long(
    api_origin: Preloaded, database_url: str, tmp_path: Path
) -> None:
    """A page shows what was typed. A form that failed once must not be read, and waited for, a second time."""
    log = tmp_path / "gunicorn.log"
    with gunicorn(api_origin, database_url, log, WEB_CONCURRENCY="1") as client, ExitStack() as still:
        server = ("127.0.0.1", client.base_url.port)
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/%s\r\nContent-Length: 9\r\n\r\n{"
        form, program = head % (b"/", b"x-www-form-urlencoded"), head % (b"/v1/users", b"json")
        kept = still.enter_context(socket.create_connection(server))
        kept.sendall(WHOLE)
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        began = monotonic()
        for sent in (form, program, b"GET /healthz HT", b"GET /healthz HT"):
            still.enter_context(socket.create_connection(server)).sendall(sent)

        # All four threads are busy. A fifth client waits only as long as the others may stand still.
        wait_until(lambda: not is_answered(client), 20, "all threads to be held")
        wait_until(lambda: is_answered(client), 40, "a thread")
        for request in ('"POST /" 408', '"POST /v1/users" 408'):
            wait_until(partial(is_logged, log, request), 40, f"{request} to be given up")
        assert monotonic() - began < 18, "one of them was waited for twice"

        # Clients keep connections for longer than the five seconds of many servers.
        kept.sendall(WHOLE)
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

    assert "Traceback" not in log.read_text()


def is_logged(log: Path, text: str) -> bool:
    return text in log.read_text()


def is_answered(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz", timeout=1).is_success
    except httpx.TimeoutException:
        return False


def test_what_never_reaches_the_application_is_a_problem_too(
    api_origin: Preloaded, database_url: str, tmp_path: Path
) -> None:
    with gunicorn(api_origin, database_url, tmp_path / "gunicorn.log", WEB_CONCURRENCY="1") as client:
        long_address = client.get(f"/v1/verify_email?secret_code={'sesame' * 1000}")
        long_header = client.get("/", headers={"X-Long": "sesame" * 2000})

    for response, status in ((long_address, 414), (long_header, 431)):
        assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
        assert response.json()["status"] == status
        assert "sesame" not in response.text


@pytest.mark.parametrize(("proxies", "last"), [("0", 429), ("1", 422)])
def test_forwarding_headers_are_believed_from_trusted_proxies_alone(
    api_origin: Preloaded, database_url: str, tmp_path: Path, proxies: str, last: int
) -> None:
    log = tmp_path / "gunicorn.log"
    settings = {"TRUSTED_PROXIES": proxies, "WEB_CONCURRENCY": "1", "BASE_URL": "https://bank.example"}
    with gunicorn(api_origin, database_url, log, **settings) as client:
        page = client.get("/", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"})
        answers = [
            client.post("/v1/users", json={}, headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(31)
        ]

    # Thirty a minute is the default. The local machine is not limited, unless it is a proxy that speaks for others.
    assert answers == [422] * 30 + [last]
    assert ("Strict-Transport-Security" in page.headers) is (proxies == "1")
    for event in ("proxy.not_trusted", "forwarding_header.ignored"):
        assert (f'"event": "{event}"' in log.read_text()) is (proxies == "0")


@pytest.mark.parametrize("port", ["", "http", "0", "65536", "-1", "80 80", "\u0661"])
def test_malformed_port_stops_the_start_by_its_name(api_origin: Preloaded, tmp_path: Path, port: str) -> None:
    settings = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "SECRET_KEY": KEY, "PORT": port}

    exit_code, said = start_with(api_origin, tmp_path / "gunicorn.log", **settings)

    assert exit_code == 2
    assert "PORT: has to be a whole number" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("processes", ["0", "-1", "1001"])
def test_number_of_processes_that_makes_no_sense_stops_the_start_by_its_name(
    api_origin: Preloaded, tmp_path: Path, processes: str
) -> None:
    settings = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "SECRET_KEY": KEY, "WEB_CONCURRENCY": processes}

    exit_code, said = start_with(
        api_origin, tmp_path / "gunicorn.log", **settings, PORT="none", KEEPALIVE_SECONDS="for ever"
    )

    assert exit_code == 2
    assert "PORT: has to be a whole number from 1 to 65535" in said
    assert "WEB_CONCURRENCY: has to be a whole number from 1 to 1000" in said
    assert "KEEPALIVE_SECONDS: has to be a whole number from 0 to 3600" in said
    assert "Traceback" not in said


def test_folder_for_counts_that_does_not_exist_stops_the_start_by_its_name(
    api_origin: Preloaded, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "SECRET_KEY": KEY}

    exit_code, said = start_with(
        api_origin, tmp_path / "gunicorn.log", **settings, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "absent")
    )

    assert exit_code == 2
    assert "PROMETHEUS_MULTIPROC_DIR: has to be a folder" in said
    assert "Traceback" not in said


def test_malformed_settings_stop_the_start_by_their_names(api_origin: Preloaded, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "mysql://x", "SECRET_KEY": "short-and-secret", "TRUSTED_PROXIES": "many"}

    exit_code, said = start_with(api_origin, tmp_path / "gunicorn.log", **settings)

    assert exit_code == 2
    for name in settings:
        assert f"{name}: " in said
    assert "Traceback" not in said
    assert "short-and-secret" not in said
