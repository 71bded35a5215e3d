"""What an identity is called in certificates and handshakes.

In:        numbers of identities.
Out:       SPIFFE ids and server names, and back.
Elsewhere: certificates.py writes them; handshake.py asks for them.

Source: the SPIFFE ID specification; names as Cilium gives them (spec/mesh.md, section 7).
"""

from __future__ import annotations

import re
from typing import Final

from mesh.identities import FIRST, LAST

TRUST_DOMAIN: Final = "spiffe.cilium"

_URI: Final = re.compile(rf"spiffe://{re.escape(TRUST_DOMAIN)}/identity/([1-9][0-9]{{0,9}})")
_SERVER_NAME: Final = re.compile(rf"([1-9][0-9]{{0,9}})\.{re.escape(TRUST_DOMAIN)}")


def uri_of(identity: int) -> str:
    """The SPIFFE id."""
    return f"spiffe://{TRUST_DOMAIN}/identity/{identity}"


def server_name_of(identity: int) -> str:
    """What a client asks for in its hello (SNI)."""
    return f"{identity}.{TRUST_DOMAIN}"


def identity_of_uri(uri: str) -> int | None:
    """The identity behind a SPIFFE id of our domain; None for any other text."""
    return _number(_URI.fullmatch(uri))


def identity_of_server_name(name: str) -> int | None:
    """The identity that a client asks for; None for any other name."""
    return _number(_SERVER_NAME.fullmatch(name))


def may_prove(identity: int) -> bool:
    """Whether there can be a certificate: for pods' identities, not for reserved ones and prefixes."""
    return FIRST <= identity <= LAST


def _number(found: re.Match[str] | None) -> int | None:
    return int(found[1]) if found and may_prove(int(found[1])) else None
