"""Ports and ICMP types of a rule.

In:        `toPorts` and `icmps`.
Out:       frozen models; rules of layer 7 fit the ports they stand on.
Elsewhere: mesh/policy/compiling.py finds the numbers of named ports; mesh/policy/ports.py has ports of proxies.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from mesh.policy.documents.fields import refuse_fields
from mesh.policy.documents.layer7 import L7Rules
from mesh.resources.base import Model

MAX_PORTS: Final = 40
PORTLESS: Final = frozenset({"VRRP", "IGMP"})
ICMP_TYPES: Final[dict[str, dict[str, int]]] = {
    "IPv4": {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    "IPv6": {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
        "ExtendedEchoRequest": 160,
        "ExtendedEchoReply": 161,
    },
}
"""Names of ICMP types in `icmps`."""


class PortProtocol(Model):
    port: str | int = "0"
    end_port: Annotated[int, Field(ge=0, le=65535)] = 0
    protocol: Literal["TCP", "UDP", "SCTP", "ANY", "VRRP", "IGMP", ""] = "ANY"

    @model_validator(mode="after")
    def _is_a_port(self) -> Self:
        text = str(self.port)
        if text.isdigit():
            if int(text) > 65535:
                raise ValueError(f"port: must be 0 to 65535, got {text}")
            if self.end_port and self.end_port < int(text):
                raise ValueError(f"endPort: must not be below port {text}, got {self.end_port}")
        elif text:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text.lower()) or not re.search("[a-z]", text):
                raise ValueError(f"port: must be a number or a port name, got {text[:80]!r}")
            if self.end_port:
                raise ValueError("endPort: needs a numeric port")
        if self.protocol in PORTLESS and text not in ("", "0"):
            raise ValueError(f"port: {self.protocol} has none")
        return self

    @property
    def number(self) -> int | None:
        """0: all ports; None: it is a name."""
        text = str(self.port)
        return int(text or 0) if text.isdigit() or not text else None


_NO_PROXY: Final = {
    **dict.fromkeys(
        ("terminatingTLS", "originatingTLS"),
        "no proxy here opens TLS for a policy; serverNames judges it by its name",
    ),
    "listener": (
        "policies send nothing to listeners of CiliumEnvoyConfigs here, so the port would be closed;"
        " name the service in the CiliumEnvoyConfig"
    ),
}
"""Cilium knows these fields; why they are refused here."""


class PortRule(Model):
    ports: Annotated[tuple[PortProtocol, ...], Field(max_length=MAX_PORTS)] = ()
    rules: L7Rules | None = None
    server_names: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _asks_for_a_proxy_that_is_there(cls, data: Any) -> Any:
        refuse_fields(data, _NO_PROXY)
        return data

    @model_validator(mode="after")
    def _rules_fit_the_ports(self) -> Self:
        kind = self.rules.kind if self.rules else ""
        if not kind:
            return self
        if self.server_names:
            raise ValueError("serverNames: not together with rules, which cannot read what TLS hides")
        if any(one.number == 0 for one in self.ports) or not self.ports:
            raise ValueError(f"rules: {kind} rules need a port")
        allowed = ("UDP", "TCP", "ANY", "") if kind == "dns" else ("TCP",)
        for at, one in enumerate(self.ports):
            if one.protocol not in allowed:
                raise ValueError(f"ports[{at}].protocol: {kind} rules need {allowed[0]} written out")
            if kind == "dns" and one.end_port:
                raise ValueError(f"ports[{at}].endPort: dns rules take no range")
        return self


class PortDenyRule(Model):
    ports: Annotated[tuple[PortProtocol, ...], Field(max_length=MAX_PORTS)] = ()


class IcmpField(Model):
    family: Literal["IPv4", "IPv6"] = "IPv4"
    type: Annotated[int, Field(ge=0, le=255)] | str

    @model_validator(mode="after")
    def _is_a_type(self) -> Self:
        if isinstance(self.type, str) and self.number is None:
            raise ValueError(f"type: must be 0 to 255 or a name like EchoRequest, got {self.type[:80]!r}")
        return self

    @property
    def number(self) -> int | None:
        """None: there is no such type."""
        if isinstance(self.type, int):
            return self.type
        if self.type.isdigit():
            return int(self.type) if int(self.type) < 256 else None
        return ICMP_TYPES[self.family].get(self.type)


class IcmpRule(Model):
    fields: Annotated[tuple[IcmpField, ...], Field(max_length=MAX_PORTS)] = ()
    # `fields` is a word of pydantic's own too.
    model_config = ConfigDict(protected_namespaces=())
