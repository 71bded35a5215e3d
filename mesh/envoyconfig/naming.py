"""Names of Envoy's resources: unlike in every other resource, and the same at both ends of a reference.

In:        messages of one CiliumEnvoyConfig.
Out:       the same messages, with full names and with the config sources that were left out.
Elsewhere: clusters.py understands names of services.

Source: spec/mesh.md section 2, "What the agent changes in the resources".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mesh.envoyconfig import messages

Source = Callable[[str, str], Any]
"""Where Envoy finds a resource: from the type (of messages.KINDS) and the full name to a ConfigSource."""


@dataclass(frozen=True, slots=True)
class Names:
    """How one CiliumEnvoyConfig's resources are called."""

    namespace: str
    """Empty for the whole cluster's."""
    name: str

    def own(self, resource: str) -> str:
        """`namespace/cec-name/resource`; also of names that have a slash already."""
        return f"{self.namespace}/{self.name}/{resource}"

    def shared(self, resource: str) -> str:
        """A name with a slash stands for a service or a secret of the cluster, and stays."""
        return resource if "/" in resource or not resource else self.own(resource)


def complete(message: Any, names: Names, source: Source) -> None:
    """Give `message` and what it refers to full names; say where routes, endpoints and secrets come from."""

    def rename_cluster_field(one: Any) -> None:
        if one.cluster:
            one.cluster = names.shared(one.cluster)

    def rename(one: Any) -> None:
        if one.name:
            one.name = names.shared(one.name)

    def connection_manager(one: Any) -> None:
        if one.HasField("rds"):
            one.rds.route_config_name = names.own(one.rds.route_config_name)
            if not one.rds.HasField("config_source"):
                one.rds.config_source.CopyFrom(source(messages.ROUTES, one.rds.route_config_name))

    def secret(one: Any) -> None:
        if one.name:
            one.name = names.shared(one.name)
            if not one.HasField("sds_config"):
                one.sds_config.CopyFrom(source(messages.SECRET, one.name))

    kind = message.DESCRIPTOR.full_name
    messages.edit(
        message,
        {
            "envoy.config.route.v3.RouteAction": rename_cluster_field,
            "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": rename_cluster_field,
            "envoy.config.route.v3.WeightedCluster.ClusterWeight": rename,
            "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig": secret,
            messages.TCP_PROXY: rename_cluster_field,
            f"{messages.TCP_PROXY}.WeightedCluster.ClusterWeight": rename,
            messages.HCM: connection_manager,
        },
    )
    if kind in {messages.LISTENER, messages.ROUTES}:
        message.name = names.own(message.name)
    elif kind == messages.ENDPOINTS:
        message.cluster_name = names.shared(message.cluster_name)
    else:
        message.name = names.shared(message.name)
