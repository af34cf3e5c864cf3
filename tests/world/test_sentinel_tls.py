"""`rediss+sentinel://`: TLS to the sentinels and to the master. The Redis of the wheel has none, Debian's has."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest

from consumer.redis_connection import SentinelRedis
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.servers.redis import RedisServer, redis_binary
from outbox_relay.broker import Broker, BrokerUnavailableError, open_broker
from tests.waiting import wait_until

_SECONDS = 20.0
_PASSWORD = "of-master"  # noqa: S105 - a test's own
_SENTINEL = """
port 0
tls-port {port}
bind 127.0.0.1
dir {folder}
tls-replication yes
tls-auth-clients no
tls-cert-file {certificate}
tls-key-file {key}
tls-ca-cert-file {certificate}
sentinel monitor outbox 127.0.0.1 {master} 1
sentinel auth-pass outbox {password}
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself; its key lies beside it."""
    file = tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=redis"]
    options: list[str | Path] = [
        "-addext",
        f"subjectAltName=IP:{LOOPBACK}",
        "-out",
        file,
        "-keyout",
        file.with_suffix(".key"),
    ]
    subprocess.run([*request, *options], check=True, capture_output=True)
    return file


@pytest.fixture
def sentinel_port(certificate: Path, tmp_path: Path) -> Iterator[int]:
    """Where a sentinel speaks TLS alone, about a master that is reached over TLS."""
    key = certificate.with_suffix(".key")
    tls_port, port = free_port(), free_port()
    settings = {"tls-port": str(tls_port), "tls-cert-file": str(certificate), "tls-key-file": str(key)}
    master = RedisServer(
        tmp_path / "master",
        settings={**settings, "tls-ca-cert-file": str(certificate), "tls-auth-clients": "no"},
        password=_PASSWORD,
    )
    file = tmp_path / "sentinel.conf"
    file.write_text(
        _SENTINEL.format(
            port=port, folder=tmp_path, certificate=certificate, key=key, master=tls_port, password=_PASSWORD
        )
    )
    argv: list[str | Path] = [redis_binary(), file, "--sentinel"]
    sentinel = Program(Command("Sentinel", argv, {"PATH": "/usr/bin:/bin", "LANG": "C"}, tmp_path, tmp_path / "log"))
    with ExitStack() as stack:
        stack.callback(master.kill)
        master.start()
        stack.callback(sentinel.kill)
        sentinel.start()
        yield port


def test_the_master_is_found_and_used_over_tls(sentinel_port: int, certificate: Path) -> None:
    url = f"rediss+sentinel://:{_PASSWORD}@{LOOPBACK}:{sentinel_port}/outbox/0?ssl_ca_certs={quote(str(certificate))}"

    with closing(SentinelRedis.from_url(url)) as client, closing(open_broker(url, "rq", 60)) as broker:
        wait_until(lambda: what_fails(broker) is None, _SECONDS, "the sentinel to name the master")

        assert client.ping()


def test_an_untrusted_certificate_is_reported(sentinel_port: int) -> None:
    with closing(open_broker(f"rediss+sentinel://{LOOPBACK}:{sentinel_port}/outbox/0", "rq", 60)) as broker:
        wait_until(
            lambda: f"127.0.0.1:{sentinel_port}: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(what_fails(broker)),
            _SECONDS,
            "the words of TLS",
        )


def what_fails(broker: Broker) -> str | None:
    """Return why Redis cannot be used, if it cannot."""
    try:
        broker.epoch()
    except BrokerUnavailableError as exc:
        return str(exc)
    return None
