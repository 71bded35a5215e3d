"""Values on their way into maps and back."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpf import maps
from bpf.datapath import Aggregation, Datapath, IpcacheEntry
from bpf.encoding import ipcache_entry, ipcache_info, ipcache_key

networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ip_network(pair, strict=False))


@given(networks, st.integers(0, 2**32 - 1), st.none() | st.ip_addresses())
@settings(max_examples=100)
def test_ipcache_entry_survives_the_map(prefix, identity, tunnel) -> None:  # type: ignore[no-untyped-def]
    entry = IpcacheEntry(identity=identity, tunnel_endpoint=tunnel)
    assert ipcache_entry(ipcache_key(prefix), ipcache_info(entry)) == (prefix, entry)


def test_ipcache_key_is_as_specified() -> None:
    key = ipcache_key(ip_network("10.244.3.0/24"))
    assert key == bytes([56, 0, 0, 0, 0, 0, 0, 1, 10, 244, 3, 0]) + bytes(12)


@pytest.mark.parametrize("address", [IPv4Address("10.0.0.1"), IPv6Address("fd00::1")])
def test_address_is_padded_to_sixteen_bytes(address: IPv4Address | IPv6Address) -> None:
    raw = maps.address_bytes(address)
    assert len(raw) == 16
    assert maps.address_from(raw, maps.family_of(address)) == address


def test_mac_is_read_and_written() -> None:
    raw = maps.mac_bytes("02:00:ab:cd:ef:01")
    assert maps.mac_text(np.frombuffer(raw + b"\0\0", np.uint8)) == "02:00:ab:cd:ef:01"
    for wrong in ("", "02:00", "0200abcdef01", "2:0:a:b:c:d"):
        with pytest.raises(ValueError, match="looks like"):
            maps.mac_bytes(wrong)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("none", 0),
        ("Disabled", 0),
        ("", 0),
        ("lowest", 1),
        ("1", 1),
        ("low", 2),
        ("MEDIUM", 3),
        ("max", 4),
        ("maximum", 4),
    ],
)
def test_aggregation_is_read_by_name_or_number(text: str, level: int) -> None:
    assert Aggregation.parse(text) == level


@pytest.mark.parametrize("text", ["5", "-1", "hig", "medium!"])
def test_aggregation_of_another_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="aggregation is none, lowest"):
        Aggregation.parse(text)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden"])
def test_node_name_must_do_as_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="becomes a folder's name"):
        Datapath(name)
