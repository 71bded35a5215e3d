"""Rules about requests, which a proxy judges: HTTP and DNS.

In:        `rules` of an entry of `toPorts`; `toFQDNs`.
Out:       frozen models; regular expressions that Envoy would refuse are refused here, and so are rules of protocols
           that no proxy here reads.
Elsewhere: mesh/policy/view.py hands them to the proxies.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mesh.policy.documents.fields import Regex, refuse_fields
from mesh.resources.base import Model

_FQDN: Final = re.compile(r"[-A-Za-z0-9_.]{1,255}")
_PATTERN: Final = re.compile(r"[-A-Za-z0-9_.*]{1,255}")

_INSTEAD: Final = "so the port would be closed; allow it without rules"
_UNREAD: Final = {
    "kafka": f"Kafka rules are deprecated in Cilium, and no proxy here reads Kafka, {_INSTEAD}",
    **dict.fromkeys(("l7proto", "l7"), f"no proxy here reads other protocols than HTTP and DNS, {_INSTEAD}"),
}
"""Cilium knows these rules; why they are refused here."""


def _shaped(shape: re.Pattern[str], what: str) -> Any:
    def check(text: str) -> str:
        if not shape.fullmatch(text):
            raise ValueError(f"must be {what}, got {text[:80]!r}")
        return text

    return AfterValidator(check)


class HeaderMatch(Model):
    name: Annotated[str, Field(min_length=1)]
    value: str = ""
    mismatch: Literal["", "LOG", "ADD", "DELETE", "REPLACE"] = ""

    @model_validator(mode="before")
    @classmethod
    def _has_its_value_written(cls, data: Any) -> Any:
        if isinstance(data, dict) and "secret" in data:
            raise ValueError("secret: values in secrets are not read, and the rule would take any; write value")
        return data


class HttpRule(Model):
    path: Regex = ""
    method: Regex = ""
    host: Regex = ""
    headers: tuple[str, ...] = ()
    header_matches: tuple[HeaderMatch, ...] = ()


class DnsRule(Model):
    """A name, or a pattern in which `*` stands for characters of one label."""

    match_name: Annotated[str, _shaped(_FQDN, "a DNS name")] = ""
    match_pattern: Annotated[str, _shaped(_PATTERN, "a DNS name that may contain *")] = ""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if bool(self.match_name) == bool(self.match_pattern):
            raise ValueError("needs either matchName or matchPattern")
        return self

    @property
    def text(self) -> str:
        """As it appears in labels of identities."""
        return self.match_name or self.match_pattern


class L7Rules(Model):
    http: tuple[HttpRule, ...] | None = None
    dns: tuple[DnsRule, ...] | None = None

    @property
    def kind(self) -> str:
        """`http`, `dns`, or "" for none."""
        return "http" if self.http is not None else "dns" if self.dns is not None else ""

    @model_validator(mode="before")
    @classmethod
    def _is_about_what_a_proxy_reads(cls, data: Any) -> Any:
        refuse_fields(data, _UNREAD)
        return data

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        if self.http is not None and self.dns is not None:
            raise ValueError("rules of one kind only: http or dns")
        return self
