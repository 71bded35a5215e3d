"""Ingress and IngressClass, as users write them.

In:        networking.k8s.io/v1.
Out:       frozen models.
Elsewhere: translate.py says what they mean.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

import re2
from pydantic import AfterValidator, Field, model_validator

from mesh.resources.base import Model, Resource
from mesh.resources.fields import DnsName, Port, PortName

CLASS: Final = "cilium"
CONTROLLER: Final = "cilium.io/ingress-controller"
MAX_NAME: Final = 170
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _host(text: str) -> str:
    if text and (len(text) > 253 or not _HOST.fullmatch(text)):
        raise ValueError(f"must be a host name, or one with '*.' in front, got {text[:80]!r}")
    return text


HostName = Annotated[str, AfterValidator(_host)]


class ServiceBackendPort(Model):
    number: Port | None = None
    name: PortName | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.number is None) == (self.name is None):
            raise ValueError("needs either number or name")
        return self

    def __str__(self) -> str:
        return self.name or str(self.number)


class ServiceBackend(Model):
    name: DnsName
    port: ServiceBackendPort


class IngressBackend(Model):
    service: ServiceBackend


class HttpPath(Model):
    path: str = ""
    path_type: Literal["Exact", "Prefix", "ImplementationSpecific"]
    backend: IngressBackend

    @model_validator(mode="after")
    def _path_can_be_matched(self) -> Self:
        if self.path_type != "ImplementationSpecific":
            if not self.path.startswith("/") or any(part in self.path for part in ("//", "?", "#", "\0")):
                raise ValueError(f"path: must begin with '/', without '//', '?' or '#', got {self.path[:80]!r}")
            return self
        try:
            re2.compile(self.path)
        except re2.error as error:
            raise ValueError(f"path: must be a regular expression (RE2): {error}, got {self.path[:80]!r}") from None
        return self


class HttpRule(Model):
    paths: Annotated[tuple[HttpPath, ...], Field(min_length=1)]


class IngressRule(Model):
    host: HostName = ""
    http: HttpRule | None = None


class IngressTls(Model):
    hosts: tuple[HostName, ...] = ()
    secret_name: DnsName | Literal[""] = ""


class IngressSpec(Model):
    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[IngressTls, ...] = ()

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if self.default_backend is None and not self.rules:
            raise ValueError("needs rules or defaultBackend")
        return self


class BalancerPort(Model):
    port: Port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    ignored = frozenset({"error"})


class BalancerAddress(Model):
    ip: str = ""
    hostname: str = ""
    ports: tuple[BalancerPort, ...] = ()


class Balancer(Model):
    ingress: tuple[BalancerAddress, ...] = ()


class IngressStatus(Model):
    load_balancer: Balancer = Balancer()


class Ingress(Resource):
    kind: Literal["Ingress"] = "Ingress"
    spec: IngressSpec
    status: IngressStatus = IngressStatus()

    @model_validator(mode="after")
    def _name_leaves_room(self) -> Self:
        # The names of what is made from it have a prefix and the namespace in them, and the same limit.
        if len(self.metadata.name) > MAX_NAME:
            raise ValueError(f"metadata.name: must be at most {MAX_NAME} characters")
        return self

    def annotation(self, name: str) -> str:
        """Of our own annotations; empty when it is not there."""
        return self.metadata.annotations.get(f"ingress.cilium.io/{name}", "")


class IngressClassSpec(Model):
    controller: str = ""
    ignored = frozenset({"parameters"})


class IngressClass(Resource):
    kind: Literal["IngressClass"] = "IngressClass"
    spec: IngressClassSpec = IngressClassSpec()

    @property
    def is_default(self) -> bool:
        return self.metadata.annotations.get("ingressclass.kubernetes.io/is-default-class") == "true"
