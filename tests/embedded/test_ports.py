"""Ports on 127.0.0.1."""

import socket
from pathlib import Path

import pytest

from embedded.programs.ports import LOOPBACK, free_port, is_free


def test_the_usual_port_is_taken_where_it_is_free() -> None:
    usual = free_port()

    assert free_port(usual) == usual


def test_another_port_is_taken_where_the_usual_one_is_not_free() -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        usual = other.getsockname()[1]

        assert not is_free(usual)
        assert free_port(usual) != usual


def test_free_ports_lie_outside_the_range_of_outgoing_connections() -> None:
    settings = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not settings.exists():
        pytest.skip("this system does not show its range of ports")
    first = int(settings.read_text().split()[0])
    if first <= 12_000:
        pytest.skip("nothing lies below this system's range")

    assert all(free_port() < first for _ in range(50))
