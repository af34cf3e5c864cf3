"""Which addresses a webhook may be sent to."""

import pytest

from consumer.webhooks.addresses import AllowedAddresses
from shared.settings.parsing import parse_networks

PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:93.184.215.14", "64:ff9b::93.184.215.14"]
OTHERS = [
    *["127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"],  # noqa: S104
    *["192.0.0.170", "192.88.99.1", "198.18.0.1", "224.0.0.1", "233.252.0.1", "240.0.0.1", "255.255.255.255"],
    *["::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::ffff:10.0.0.1"],
    *["64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001::1", "2001:db8::1", "fec0::1", "fe80::1"],
    *["fe80::1%eth0", "2606:2800:21f:cb07::1%eth0", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "100::1", "host", ""],
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed_over_tls_alone(address: str) -> None:
    allowed = AllowedAddresses()

    assert allowed.allow(address, is_encrypted=True)
    assert not allowed.allow(address, is_encrypted=False)


@pytest.mark.parametrize("address", OTHERS)
def test_any_other_address_is_not(address: str) -> None:
    assert not AllowedAddresses().allow(address, is_encrypted=True)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd12::7"])
def test_an_address_in_an_allowed_network_is_allowed_whatever_form_it_has(address: str) -> None:
    allowed = AllowedAddresses(parse_networks("10.1.0.0/16, fd12::/64", ""))

    assert allowed.allow(address, is_encrypted=True)
    assert allowed.allow(address, is_encrypted=False)


@pytest.mark.parametrize("address", ["10.2.0.1", "127.0.0.1", "fd12:0:0:1::7"])
def test_its_neighbours_are_not(address: str) -> None:
    assert not AllowedAddresses(parse_networks("10.1.0.0/16,fd12::/64", "")).allow(address, is_encrypted=True)
