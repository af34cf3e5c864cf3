import errno
import socket
from contextlib import nullcontext

import pytest

from shared.errors import SettingsError
from shared.settings.gunicorn import check_server_settings, listen_addresses, read_keepalive_seconds


@pytest.mark.parametrize(("takes_ipv6_alone", "addresses"), [(0, ["[::]:8080"]), (1, ["0.0.0.0:8080", "[::]:8080"])])
def test_ipv4_is_listened_to_beside_ipv6_whatever_the_kernel_s_default_is(
    takes_ipv6_alone: int, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Probe:
        def __init__(self, *_: object) -> None:
            self.bind = lambda _: None
            self.getsockopt = lambda *_: takes_ipv6_alone

    monkeypatch.setattr(socket, "socket", lambda *_: nullcontext(Probe()))

    assert listen_addresses(8080) == addresses


def test_ipv4_alone_is_listened_to_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)

    assert listen_addresses(8080) == ["0.0.0.0:8080"]


def test_connections_are_kept_for_75_seconds_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_keepalive_seconds() == 75

    monkeypatch.setenv("KEEPALIVE_SECONDS", "0")
    assert read_keepalive_seconds() == 0


@pytest.mark.parametrize("text", ["", "-1", "75.5", "3601", "for ever"])
def test_a_time_that_is_none_is_refused_by_name(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPALIVE_SECONDS", text)

    with pytest.raises(SettingsError, match="KEEPALIVE_SECONDS"):
        check_server_settings()
