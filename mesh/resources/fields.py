"""Types of single fields: names, labels, ports, addresses.

In:        what stands in one field.
Out:       the same, checked; a value that cannot be is refused with what it must be.
Elsewhere: base.py and the kinds put them together.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field


def _checked(pattern: str, what: str, longest: int) -> Callable[[str], str]:
    shape = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > longest or not shape.fullmatch(text):
            raise ValueError(f"must be {what} of at most {longest} characters, got {text[:80]!r}")
        return text

    return check


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"must be an IP address, got {text[:80]!r}") from None


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"must be a CIDR like 10.244.1.0/24, got {text[:80]!r}") from None


_WORD = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DnsLabel = Annotated[str, AfterValidator(_checked(_WORD, "lower case letters, digits and '-'", 63))]
DnsName = Annotated[str, AfterValidator(_checked(rf"{_WORD}(\.{_WORD})*", "a lower case DNS name", 253))]
LabelKey = Annotated[
    str,
    AfterValidator(_checked(rf"({_WORD}(\.{_WORD})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", "a label name", 317)),
]
LabelValue = Annotated[
    str, AfterValidator(_checked(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", "a label value", 63))
]
Labels = dict[LabelKey, LabelValue]
Port = Annotated[int, Field(ge=1, le=65535)]
PortName = Annotated[str, AfterValidator(_checked(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "a port name", 63))]
Protocol = Literal["TCP", "UDP", "SCTP"]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
