"""The client against endpoints that answer well, badly, slowly, or not at all."""

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from consumer.webhooks.addresses import AllowedAddresses
from consumer.webhooks.client import Answer, NoAnswerError, NoConnectionError, TooLateError, WebhookClient
from embedded.programs.ports import LOOPBACK, free_port
from shared.settings.parsing import parse_networks
from shared.webhooks.urls import parse_webhook_url
from tests.servers.certificates import write_certificate
from tests.servers.scripted_endpoint import Script, ScriptedEndpoint, answering

LOOPBACK_ALLOWED = AllowedAddresses(parse_networks("127.0.0.0/8", ""))
TOKEN = "T0-B0-a-token-in-the-path"  # noqa: S105 - the tests' own
BODY = b'{"type":"user.signed_up"}'


def post(
    port: int,
    *,
    scheme: str = "http",
    host: str = LOOPBACK,
    seconds: float = 5.0,
    allowed: AllowedAddresses = LOOPBACK_ALLOWED,
) -> Answer:
    url = parse_webhook_url(f"{scheme}://{host}:{port}/{TOKEN}?a=b")
    now = monotonic()
    headers = {"Content-Type": "application/json"}
    return WebhookClient(allowed).post(url, BODY, headers, begin_until=now + seconds, until=now + seconds)


@contextmanager
def endless(pieces: Iterable[bytes], pause_seconds: float) -> Iterator[ScriptedEndpoint]:
    """Run an endpoint that writes these pieces one after the other, with a pause before each."""

    def script() -> Iterator[bytes]:
        for piece in pieces:
            endpoint.stopped.wait(pause_seconds)
            yield piece

    with ScriptedEndpoint(script) as endpoint:
        yield endpoint


def test_the_request_names_the_endpoint_and_carries_the_body() -> None:
    with ScriptedEndpoint(answering(204)) as endpoint:
        assert post(endpoint.port, host="localhost") == Answer(204)

        [request] = endpoint.requests
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    assert first == f"POST /{TOKEN}?a=b HTTP/1.1"
    assert f"Host: localhost:{endpoint.port}" in headers
    assert "Content-Type: application/json" in headers
    assert body == BODY


def test_variables_for_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for each in (name, name.lower()):
            monkeypatch.setenv(each, f"http://{LOOPBACK}:{free_port()}")
    with ScriptedEndpoint(answering(200)) as endpoint:
        assert post(endpoint.port) == Answer(200)


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (answering(200, body=b"\xff\x00 garbage {"), Answer(200)),
        (answering(200, "Content-Encoding: gzip", body=b"no gzip"), Answer(200)),
        (answering(503, "Retry-After: 120"), Answer(503, "120")),
        (lambda: [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 X\r\n\r\nuntil the end"], Answer(202)),
        (lambda: [b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"], Answer(200)),
        (lambda: [b"HTTP/1.1 200 X\r\nno header\r\n: none\r\n\r\n"], Answer(200)),
    ],
    ids=["garbage", "not gzip", "retry after", "continue", "bad chunks", "bad headers"],
)
def test_the_status_line_decides(script: Script, answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedEndpoint(script) as endpoint:
        assert post(endpoint.port) == answer
    assert TOKEN not in caplog.text


def test_a_redirect_to_itself_is_an_answer_like_any_other() -> None:
    with ScriptedEndpoint(answering(307, "Location: /")) as endpoint:
        assert post(endpoint.port) == Answer(307)
        assert len(endpoint.requests) == 1


def test_of_a_gigabyte_little_is_read() -> None:
    head = f"HTTP/1.1 200 X\r\nContent-Length: {2**30}\r\n\r\n".encode()
    sent = 0

    def script() -> Iterator[bytes]:
        nonlocal sent
        yield head
        while True:
            yield bytes(65_536)
            sent += 65_536

    with ScriptedEndpoint(script) as endpoint:
        assert post(endpoint.port) == Answer(200)
    # What the kernel buffers on both sides comes on top of 64 KiB.
    assert sent < 32 * 2**20


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 ", *[b"2"] * 1000],
        [b"HTTP/1.1 200 X\r\n", *[b"X"] * 1000],
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 1000,
        [b""] * 1000,
    ],
    ids=["a status a byte at a time", "headers a byte at a time", "continue for ever", "silence"],
)
def test_an_answer_that_never_ends_fails_at_the_deadline(pieces: list[bytes]) -> None:
    with endless(pieces, 0.05) as endpoint:
        began = monotonic()
        with pytest.raises(NoAnswerError, match="no answer in time"):
            post(endpoint.port, seconds=0.5)
        assert 0.4 < monotonic() - began < 3


def test_a_body_that_never_ends_keeps_nobody() -> None:
    with endless([b"HTTP/1.1 200 X\r\n\r\n", *[b"X"] * 1000], 0.05) as endpoint:
        began = monotonic()
        assert post(endpoint.port, seconds=30) == Answer(200)
        assert monotonic() - began < 5


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (lambda: [b"220 mail.example.com ESMTP\r\n"], "the answer is no HTTP"),
        (lambda: [b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 1000 + b"\r\n"], "the answer is no HTTP"),
        (lambda: [b"HTTP/1.1 200 X\r\nX: " + b"y" * 200_000], "the answer is no HTTP"),
        (list, "the connection was closed before an answer"),
    ],
    ids=["another protocol", "many headers", "a long header", "nothing"],
)
def test_an_answer_that_cannot_be_read_is_none(script: Script, reason: str) -> None:
    with ScriptedEndpoint(script) as endpoint, pytest.raises(NoAnswerError) as caught:
        post(endpoint.port)
    assert str(caught.value) == reason


def test_without_a_server_there_is_no_connection() -> None:
    with pytest.raises(NoConnectionError) as caught:
        post(free_port())
    assert str(caught.value) == "no connection: connection refused"


def test_a_name_without_an_address_is_no_connection() -> None:
    with pytest.raises(NoConnectionError) as caught:
        post(443, scheme="https", host="nobody.invalid")
    assert str(caught.value) == "no connection: its name has no address"


NOT_PUBLIC = "no connection: its name leads to no public address, nor to one of WEBHOOK_ALLOWED_NETWORKS"


@pytest.mark.parametrize("host", [LOOPBACK, "localhost", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_private_address_is_never_connected_to(host: str) -> None:
    with ScriptedEndpoint(answering(200)) as endpoint:
        with pytest.raises(NoConnectionError) as caught:
            post(endpoint.port, scheme="https", host=host, allowed=AllowedAddresses())
        assert str(caught.value) == NOT_PUBLIC
        assert endpoint.requests == []


def test_plain_http_is_for_allowed_networks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("93.184.215.14"))
    with pytest.raises(NoConnectionError, match="http is for these networks alone"):
        post(80)


def test_a_name_that_leads_elsewhere_at_the_second_look_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedEndpoint(answering(200)) as endpoint:
        narrow = AllowedAddresses(parse_networks("127.0.0.1/32", ""))
        assert post(endpoint.port, host="localhost", allowed=narrow) == Answer(200)
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.2"))
        with pytest.raises(NoConnectionError, match=NOT_PUBLIC):
            post(endpoint.port, host="localhost", allowed=narrow)
        assert len(endpoint.requests) == 1


def resolving_to(address: str) -> Any:
    def look_up(_host: str, port: int, **_options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return look_up


def test_a_look_up_that_took_too_long_begins_nothing() -> None:
    url, now = parse_webhook_url(f"http://{LOOPBACK}:{free_port()}/"), monotonic()
    with pytest.raises(TooLateError):
        WebhookClient(LOOPBACK_ALLOWED).post(url, BODY, {}, begin_until=now, until=now + 5)


@pytest.fixture
def start_with_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AbstractContextManager[ScriptedEndpoint]]:
    """Start endpoints with a certificate that the system trusts."""

    def start(san: str) -> ScriptedEndpoint:
        certificate = write_certificate(tmp_path, "endpoint", san)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return ScriptedEndpoint(answering(200), context)

    return start


StartWithCertificate = Callable[[str], AbstractContextManager[ScriptedEndpoint]]


def test_an_endpoint_with_a_certificate_for_its_name_is_sent_to(start_with_certificate: StartWithCertificate) -> None:
    with start_with_certificate("DNS:localhost") as endpoint:
        assert post(endpoint.port, scheme="https", host="localhost") == Answer(200)


def test_one_with_a_certificate_for_another_name_is_not(start_with_certificate: StartWithCertificate) -> None:
    with start_with_certificate("DNS:example.com") as endpoint:
        with pytest.raises(NoConnectionError, match="its certificate is not valid for this name"):
            post(endpoint.port, scheme="https", host="localhost")
        assert endpoint.requests == []


def test_a_handshake_that_never_ends_is_no_connection() -> None:
    with socket.create_server((LOOPBACK, 0)) as silent, pytest.raises(NoConnectionError):
        post(silent.getsockname()[1], scheme="https", seconds=0.3)


def test_nothing_is_left_open() -> None:
    open_files = len([*Path("/proc/self/fd").iterdir()])
    with ScriptedEndpoint(answering(200)) as endpoint:
        for _ in range(3):
            post(endpoint.port)
    with pytest.raises(NoConnectionError):
        post(free_port())
    assert len([*Path("/proc/self/fd").iterdir()]) <= open_files
