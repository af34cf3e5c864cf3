"""Bodies that cannot be read: one client error each, and nothing that an alert counts as ours."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.operations.scraping import samples
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
CHUNKED = "Transfer-Encoding: chunked"

BROKEN = {
    "a size that is no number": b"zz\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "a size with an endless line": b"2" + b"0" * 9000 + b"\r\n",
    "a chunk that is longer than its size": b"1\r\n{}\r\n0\r\n\r\n",
    "an extension that is none": b'2;a="\r\n{}\r\n0\r\n\r\n',
    "a trailer without a colon": b"2\r\n{}\r\n0\r\nx\r\n\r\n",
    "a trailer that is not allowed": b"2\r\n{}\r\n0\r\nHost: x\r\n\r\n",
    "a folded trailer": b"2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n",
    "a trailer with a bare line feed": b"2\r\n{}\r\n0\r\nX: y\n\r\n",
    "too many trailers": b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 101 + b"\r\n",
}


@pytest.fixture(scope="module")
def api(api_origin: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    log = tmp_path_factory.mktemp("broken-bodies") / "gunicorn.log"
    # No request of these tests needs PostgreSQL.
    with gunicorn(api_origin, "postgresql://x@127.0.0.1:1/x", log, WEB_CONCURRENCY="1", OPS_TOKEN="x" * 32) as client:
        yield client
    assert "Traceback" not in log.read_text()


def ask(api: httpx.Client, path: str, *headers: str, body: bytes) -> bytes:
    """Send a POST unchanged, close our side, and return everything that comes back."""
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", "Accept: application/json", *headers, "", ""])
    with socket.create_connection(("127.0.0.1", api.base_url.port or 0), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def status(answer: bytes) -> int:
    """Return the status of the only response."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("path", ["/v1/users", "/v1/verify_email", "/v1/verify_email/resend", "/ops/login"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_body_in_malformed_chunks_is_the_clients_error(api: httpx.Client, path: str, kind: str) -> None:
    content_type = FORM if path == "/ops/login" else JSON

    assert status(ask(api, path, content_type, CHUNKED, body=BROKEN[kind])) == 400


@pytest.mark.parametrize("path", ["/", "/inbox"])
def test_a_form_in_malformed_chunks_is_the_clients_error_and_shows_the_page(api: httpx.Client, path: str) -> None:
    answer = ask(api, path, FORM, CHUNKED, body=BROKEN["no size"])

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"<form" in answer


@pytest.mark.parametrize("kind", BROKEN)
def test_a_malformed_unread_body_gets_no_second_answer(api: httpx.Client, kind: str) -> None:
    assert status(ask(api, "/v1/nowhere", JSON, CHUNKED, body=BROKEN[kind])) == 404


@pytest.mark.parametrize(
    ("header", "body"),
    [("Content-Length: 100", b"username=alice&password=correct"), (CHUNKED, b"20\r\nusername=alice")],
)
def test_a_form_that_ends_early_is_not_taken_for_a_whole_one(api: httpx.Client, header: str, body: bytes) -> None:
    """Half a password would have become the password."""
    assert ask(api, "/", FORM, header, body=body).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("coding", ["gzip, chunked", "made-up, chunked", "made-up"])
def test_an_encoding_of_the_transfer_that_is_not_known_is_the_clients_error(api: httpx.Client, coding: str) -> None:
    assert status(ask(api, "/v1/users", JSON, f"Transfer-Encoding: {coding}", body=b"0\r\n\r\n")) == 400


def test_the_answer_to_a_malformed_body_says_that_its_connection_ends(api: httpx.Client) -> None:
    answer = ask(api, "/v1/users", JSON, CHUNKED, body=BROKEN["no size"])

    assert b"\r\nConnection: close\r\n" in answer


def test_no_malformed_body_counts_as_an_error_of_ours(api: httpx.Client) -> None:
    for body in BROKEN.values():
        ask(api, "/v1/users", JSON, CHUNKED, body=body)

    counted = samples(api.get("/metrics").text)
    statuses = {dict(labels)["status"] for (name, labels) in counted if name == "http_requests_total"}
    assert "400" in statuses
    assert not any(status.startswith("5") for status in statuses)
