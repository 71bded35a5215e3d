"""Where a server is: the words after --server, --peer and --listen.

Shape:  `host:port`, `[ipv6]:port`, `:port`, `unix:///path`, `unix:path`, a path ending in `.sock`; gRPC's resolver
        prefixes `dns:///` and `passthrough:///` are accepted and dropped; `tls://` in front switches TLS on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

_RESOLVERS: Final = re.compile(r"^(?:dns|passthrough)://[^/]*/|^(?:dns|passthrough):(?!//)|^ipv[46]:")


@dataclass(frozen=True, slots=True)
class Target:
    """One server address."""

    kind: Literal["tcp", "unix"]
    host: str = ""
    """Name or address, IPv6 without brackets; empty: this machine (for a listener: every address)."""
    port: int = 0
    path: str = ""
    tls: bool = False

    @staticmethod
    def parse(text: str, default_port: int | None = None) -> Target:
        """Read an address.

        default_port  used when the text has none; None: it must have one.
        Raises: ValueError, which names the text and what is missing.
        """
        rest = text.strip()
        tls = rest.startswith("tls://")
        rest = rest.removeprefix("tls://")
        if rest.startswith("unix:") or rest.endswith(".sock"):
            path = rest.removeprefix("unix:")
            path = path.removeprefix("//") if path.startswith("//") else path
            if not path:
                raise ValueError(f"address {text!r} has no path; write unix:///run/name.sock")
            return Target("unix", path=path, tls=tls)
        host, port = _host_and_port(text, _RESOLVERS.sub("", rest), default_port)
        return Target("tcp", host, port, tls=tls)

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        return join_host_port(self.host, self.port)


def join_host_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(text: str, rest: str, default_port: int | None) -> tuple[str, int]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", rest)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif rest.count(":") > 1:
        host, port = rest, None
    else:
        host, colon, behind = rest.partition(":")
        port = behind if colon else None
    if re.search(r"[\s/\[\]]", host):
        raise ValueError(f"address {text!r} is not host:port or unix:///path")
    if port is None:
        if default_port is None or not host:
            raise ValueError(f"address {text!r} has no port; write host:port")
        return host, default_port
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"address {text!r} has port {port!r}; it must be 0 to 65535")
    return host, int(port)
