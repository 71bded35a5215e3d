"""model/filters/gotext.py: the words of Go."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.filters.gotext import address_error, parse_uint, prefix_error, quote_rune
from model.text.quote import quote


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1.2.3.4.5", "IPv4 address too long"),
        ("1.2.3.256", "IPv4 field has value >255"),
        ("1.2.03.4", "IPv4 field has octet with leading zero"),
        (".1.2.3", 'IPv4 field must have at least one digit (at ".1.2.3")'),
        ("1..2.3", 'IPv4 field must have at least one digit (at ".2.3")'),
        ("1.2.3.4x", 'unexpected character (at "x")'),
        ("%eth0", "missing IPv6 address"),
        ("fe80::1%", "zone must be a non-empty string"),
        ("1:2:3", "address string too short"),
        ("1:2:3:4:5:6:7:8:9", 'trailing garbage after address (at "9")'),
        ("1::2::3", 'multiple :: in address (at ":3")'),
        ("12345::", 'each group must have 4 or less digits (at "12345::")'),
        ("::g", 'each colon-separated field must have at least one digit (at "g")'),
        ("1:2:3:4:5:6:7:", 'colon must be followed by more characters (at ":")'),
        ("1:2x", 'unexpected character, want colon (at "x")'),
        ("1.2.3.4::", 'unexpected character (at "::")'),
        ("1:1.2.3.4", 'embedded IPv4 address must replace the final 2 fields of the address (at "1.2.3.4")'),
        ("::1:2:3:4:5:6:7:8", "the :: must expand to at least one field of zeros"),
        ("::1.2.3", "IPv4 address too short"),
    ],
)
def test_an_address_is_refused_as_netip_refuses_it(text: str, reason: str) -> None:
    assert address_error(text) == f"ParseAddr({quote(text)}): {reason}"


@given(st.one_of(st.ip_addresses().map(str), st.text("0123456789abcdef:.%", max_size=20)))
def test_an_address_is_accepted_where_python_accepts_it(text: str) -> None:
    try:
        # Go takes any zone that is not empty; Python takes none with a "%" in it.
        address, percent, zone = text.partition("%")
        valid = ipaddress.ip_address(address).version == 6 and zone != "" if percent else True
        ipaddress.ip_address(address)
    except ValueError:
        valid = False
    assert (address_error(text) is None) == valid


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.0/", 'bad bits after slash: ""'),
        ("10.0.0.0/08", 'bad bits after slash: "08"'),
        ("10.0.0.0/+8", 'bad bits after slash: "+8"'),
        ("10.0.0.0/33", "prefix length out of range"),
        ("::/129", "prefix length out of range"),
        ("::/9999999999999999999999", 'bad bits after slash: "9999999999999999999999"'),
        ("fe80::%a/64", "IPv6 zones cannot be present in a prefix"),
        ("10.0.0/8", 'ParseAddr("10.0.0"): IPv4 address too short'),
    ],
)
def test_a_prefix_is_refused_as_netip_refuses_it(text: str, reason: str) -> None:
    assert prefix_error(text) == f"netip.ParsePrefix({quote(text)}): {reason}"


@pytest.mark.parametrize("text", ["10.0.0.9/24", "::/0", "::ffff:1.2.3.4/96", "0.0.0.0/0"])
def test_a_prefix_may_have_host_bits(text: str) -> None:
    assert prefix_error(text) is None


@pytest.mark.parametrize(
    ("char", "quoted"), [("a", "'a'"), ("'", r"'\''"), ('"', "'\"'"), ("\\", r"'\\'"), ("\n", r"'\n'"), ("ä", "'ä'")]
)
def test_a_rune_stands_in_single_quotes(char: str, quoted: str) -> None:
    assert quote_rune(char) == quoted


@pytest.mark.parametrize("text", ["", "-1", "1_0", "0x1", " 1", "１"])
def test_a_number_is_decimal_digits_only(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_uint(text, 16)


def test_leading_zeros_count_for_nothing_and_long_numbers_are_out_of_range() -> None:
    assert parse_uint("0" * 50 + "80", 16) == 80
    with pytest.raises(ValueError, match="value out of range"):
        parse_uint("9" * 5000, 64)
