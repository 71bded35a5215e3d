"""CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig, as users write them.

In:        their fields, with Envoy's resources as plain data.
Out:       frozen models; the resources are known to be messages of Envoy's.
Elsewhere: validation.py asks Envoy itself; translate.py makes of them what a node's Envoy gets.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from mesh.envoyconfig import messages
from mesh.resources.base import Condition, Model, Resource
from mesh.resources.fields import DnsLabel, DnsName, Port
from mesh.resources.selectors import LabelSelector

MAX_RESOURCES: Final = 1000
USE_ORIGINAL_SOURCE: Final = "cec.cilium.io/use-original-source-address"
"""Annotation: with "false", whoever asks is served in the name of the node's ingress address, pods too."""


def _checked(raw: dict[str, Any]) -> dict[str, Any]:
    message = messages.parse(raw)
    if message.DESCRIPTOR.full_name == messages.CLUSTER and _has_filters(message):
        raise ValueError(
            f"typed_extension_protocol_options: {messages.HTTP_OPTIONS}.http_filters: Envoy would ask them in place of"
            " the filter by which policy judges the chosen backend; write them as upstream_http_filters of the router"
        )
    return raw


def _has_filters(cluster: Any) -> bool:
    options = cluster.typed_extension_protocol_options.get(messages.HTTP_OPTIONS)
    if options is None or options.type_url != messages.URL + messages.HTTP_OPTIONS:
        return False
    return bool(messages.unpacked(options).http_filters)


EnvoyResource = Annotated[dict[str, Any], AfterValidator(_checked)]


class ServiceListener(Model):
    """A service whose traffic goes to a listener."""

    name: DnsName
    namespace: DnsLabel | Literal[""] = ""
    ports: tuple[Port, ...] = ()
    """Of the service; none: all of them."""
    listener: str = ""
    """Empty: the first listener of the resource."""


class BackendService(Model):
    """A service whose backends Envoy learns, and whose traffic goes where it went."""

    name: DnsName
    namespace: DnsLabel | Literal[""] = ""
    number: tuple[str, ...] = ()
    """Port numbers or names; none: all of them."""


class EnvoyConfigSpec(Model):
    services: tuple[ServiceListener, ...] = ()
    backend_services: tuple[BackendService, ...] = ()
    resources: Annotated[tuple[EnvoyResource, ...], Field(max_length=MAX_RESOURCES)] = ()
    node_selector: LabelSelector | None = None


class EnvoyConfigStatus(Model):
    conditions: tuple[Condition, ...] = ()


class EnvoyConfig(Resource):
    """What both kinds have in common."""

    spec: EnvoyConfigSpec
    status: EnvoyConfigStatus = EnvoyConfigStatus()

    @property
    def keeps_source(self) -> bool:
        """Whether pods are themselves towards backends, with the policy that they have there."""
        return self.metadata.annotations.get(USE_ORIGINAL_SOURCE) != "false"

    def namespace_of(self, one: ServiceListener | BackendService) -> str:
        """Where a service that this resource names lives."""
        raise NotImplementedError


class CiliumEnvoyConfig(EnvoyConfig):
    kind: Literal["CiliumEnvoyConfig"] = "CiliumEnvoyConfig"

    def namespace_of(self, one: ServiceListener | BackendService) -> str:
        # v2 has put the kind into namespaces; what was v2alpha1 belonged to the cluster and could name any.
        # Backends of other namespaces may be learned: nobody's traffic changes by that.
        if self.api_version.endswith("/v2alpha1") or isinstance(one, BackendService):
            return one.namespace or self.namespace
        return self.namespace


class CiliumClusterwideEnvoyConfig(EnvoyConfig):
    kind: Literal["CiliumClusterwideEnvoyConfig"] = "CiliumClusterwideEnvoyConfig"

    def namespace_of(self, one: ServiceListener | BackendService) -> str:
        return one.namespace or "default"
