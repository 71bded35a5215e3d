"""Addresses are written as flows carry them and read in every spelling."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.address_text import address_text, mac_text, parse_address_text, parse_mac
from model.row import IPV4, IPV6


@given(st.ip_addresses())
def test_text_is_canonical_and_read_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    version, number = (IPV4 if address.version == 4 else IPV6), int(address)
    text = address_text(number >> 64, number & 2**64 - 1, version)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        assert text == str(address.ipv4_mapped)
        return
    assert text == str(address)
    assert parse_address_text(text) == (version, number >> 64, number & 2**64 - 1)


@pytest.mark.parametrize("text", ["::", "::1", "::a", "::1:0", "::a00:1", "1::", "fe80::1:0:0:1"])
def test_short_forms_of_ipv6_have_no_dots(text: str) -> None:
    number = int(ipaddress.IPv6Address(text))
    assert address_text(number >> 64, number & 2**64 - 1, IPV6) == text


def test_the_ipv4_address_is_shown_where_an_ipv6_header_carries_one() -> None:
    assert address_text(0, 0xFFFF_0AF4_000A, IPV6) == "10.244.0.10"


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3", "010.0.0.1", "1.2.3.4.5", "1::2::3", "fe80::1%eth0", "1.2.3.4\0", "\ud800"]
)
def test_other_text_is_no_address(text: str) -> None:
    assert parse_address_text(text) is None


@given(st.binary(min_size=6, max_size=6))
def test_mac_addresses_are_read_back(mac: bytes) -> None:
    assert parse_mac(mac_text(mac)) == mac


@pytest.mark.parametrize(
    "text", ["", "0A:58:0a:f4:00:01", "0a58:0af4:0001", "0a:58:0a:f4:00", "0a:58:0a:f4:00:01:02", "zz:58"]
)
def test_other_spellings_are_no_mac_address(text: str) -> None:
    assert parse_mac(text) is None
