"""Types of single fields of policies: prefixes, regular expressions, labels with their sources.

In:        what stands in one field.
Out:       the same, checked; EndpointSelector, which selects by such labels.
Elsewhere: names and labels without a source are in mesh/resources/fields.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Literal, Self

import re2
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mesh.resources.base import Model
from mesh.resources.fields import LabelValue

MAX_REGEX: Final = 2048
Network = IPv4Network | IPv6Network
_RE2: Final = re2.Options()
_RE2.log_errors = False
_RE2.max_mem = 1 << 20
_SOURCE: Final = re.compile(r"([a-z][a-z0-9-]*):(.+)")
_KEY: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?")


def refuse_fields(data: object, reasons: Mapping[str, str]) -> None:
    """Raises: ValueError for a field that Cilium knows and nothing here serves; `reasons` by the field's name."""
    for name, reason in reasons.items():
        if isinstance(data, dict) and data.get(name) is not None:
            raise ValueError(f"{name}: {reason}")


def _selector_key(text: str) -> str:
    match = _SOURCE.fullmatch(text)
    if len(text) > 380 or not _KEY.fullmatch(match[2] if match else text):
        raise ValueError(f"must be a label name, or source:name, got {text[:80]!r}")
    return text


def _prefix(text: object) -> object:
    """A prefix may be a bare address; host bits are dropped, as Cilium does."""
    if not isinstance(text, str):
        raise ValueError(f"must be a CIDR like 10.0.0.0/8, got {str(text)[:80]!r}")
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"must be a CIDR like 10.0.0.0/8, got {text[:80]!r}") from None


def _slashed(text: object) -> object:
    if isinstance(text, str) and "/" not in text:
        raise ValueError(f"must be address/length, got {text[:80]!r}")
    return _prefix(text)


def _regular(text: str) -> str:
    """One that Envoy takes, whose language is RE2: a policy that it refuses would keep all others from it."""
    if len(text) > MAX_REGEX:
        raise ValueError(f"must be a regular expression of at most {MAX_REGEX} characters, got {len(text)}")
    try:
        re2.compile(text, _RE2)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"must be a regular expression as RE2 reads it: {reason}") from None
    return text


SelectorKey = Annotated[str, AfterValidator(_selector_key)]
Prefix = Annotated[Network, BeforeValidator(_prefix)]
SlashedPrefix = Annotated[Network, BeforeValidator(_slashed)]
Regex = Annotated[str, AfterValidator(_regular)]


class SelectorTerm(Model):
    key: SelectorKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_the_values_it_needs(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(f"values: {self.operator} needs {'some' if not self.values else 'none'}")
        return self


class EndpointSelector(Model):
    """A label selector whose keys may name their source: `k8s:app`, `reserved:host`, or `app` from any source."""

    match_labels: dict[SelectorKey, LabelValue] = Field(default_factory=dict)
    match_expressions: tuple[SelectorTerm, ...] = ()


def is_inside(inner: Network, outer: Network) -> bool:
    """Whether `outer` covers `inner`."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
