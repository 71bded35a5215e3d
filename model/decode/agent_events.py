"""What the agent did, as messages of the API.

In:        number of a notification and its JSON object.
Out:       flow.AgentEvent.
Elsewhere: vocabulary.py has the names of the numbers, which are the monitor's and not the API's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.wrappers_pb2 import UInt32Value

from model.text.times import parse_rfc3339
from model.text.tojson import ESCAPED
from model.vocabulary import AGENT_NOTIFICATIONS
from proto.flow import flow_pb2


def agent_event(number: int, notification: Mapping[str, Any], shape: str | None = None) -> flow_pb2.AgentEvent:
    """The event for monitor notification `number`.

    `shape` is the name of the notification's type where the sender tells it. A notification that is not of the shape
    that its number asks for, or has an unknown number, becomes an "unknown" event with its JSON.
    """
    known = _KINDS.get(number)
    if known is not None:
        kind, wanted, mark, fill = known
        if (shape.rpartition(".")[2] == wanted) if shape else mark in notification:
            event = flow_pb2.AgentEvent(type=kind)
            fill(event, notification)
            return event
    text = json.dumps(notification, ensure_ascii=False, separators=(",", ":"))
    unknown = flow_pb2.AgentEventUnknown(type=str(number), notification=text.translate(ESCAPED))
    return flow_pb2.AgentEvent(unknown=unknown)


def _agent_start(event: flow_pb2.AgentEvent, told: Mapping[str, Any]) -> None:
    event.agent_start.SetInParent()
    try:
        seconds, nanos = parse_rfc3339(str(told.get("time", "")))
    except ValueError:
        return
    event.agent_start.time.seconds, event.agent_start.time.nanos = seconds, nanos


def _policy_update(event: flow_pb2.AgentEvent, told: Mapping[str, Any]) -> None:
    event.policy_update.CopyFrom(
        flow_pb2.PolicyUpdateNotification(
            labels=told.get("labels") or (), revision=told.get("revision", 0), rule_count=told.get("rule_count", 0)
        )
    )


def _endpoint_regenerate(event: flow_pb2.AgentEvent, told: Mapping[str, Any]) -> None:
    event.endpoint_regenerate.CopyFrom(
        flow_pb2.EndpointRegenNotification(
            id=told.get("id", 0), labels=told.get("labels") or (), error=told.get("error", "")
        )
    )


def _endpoint_update(event: flow_pb2.AgentEvent, told: Mapping[str, Any]) -> None:
    event.endpoint_update.CopyFrom(
        flow_pb2.EndpointUpdateNotification(
            id=told.get("id", 0),
            labels=told.get("labels") or (),
            error=told.get("error", ""),
            pod_name=told.get("pod-name", ""),
            namespace=told.get("namespace", ""),
        )
    )


def _ipcache_update(event: flow_pb2.AgentEvent, told: Mapping[str, Any]) -> None:
    update = flow_pb2.IPCacheNotification(
        cidr=told.get("cidr", ""),
        identity=told.get("id", 0),
        host_ip=told.get("host-ip") or "",
        old_host_ip=told.get("old-host-ip") or "",
        encrypt_key=told.get("encrypt-key", 0),
        namespace=told.get("namespace", ""),
        pod_name=told.get("pod-name", ""),
    )
    if told.get("old-id") is not None:
        update.old_identity.CopyFrom(UInt32Value(value=told["old-id"]))
    event.ipcache_update.CopyFrom(update)


_Fill = Callable[[flow_pb2.AgentEvent, Mapping[str, Any]], None]
_POLICY: Final = ("PolicyUpdateNotification", "revision", _policy_update)
_REGENERATE: Final = ("EndpointRegenNotification", "id", _endpoint_regenerate)
_ENDPOINT: Final = ("EndpointNotification", "id", _endpoint_update)
_IPCACHE: Final = ("IPCacheNotification", "cidr", _ipcache_update)
_KINDS: Final[dict[int, tuple[flow_pb2.AgentEventType, str, str, _Fill]]] = {
    AGENT_NOTIFICATIONS["agent-started"]: (flow_pb2.AGENT_STARTED, "TimeNotification", "time", _agent_start),
    AGENT_NOTIFICATIONS["policy-updated"]: (flow_pb2.POLICY_UPDATED, *_POLICY),
    AGENT_NOTIFICATIONS["policy-deleted"]: (flow_pb2.POLICY_DELETED, *_POLICY),
    AGENT_NOTIFICATIONS["endpoint-regenerate-success"]: (flow_pb2.ENDPOINT_REGENERATE_SUCCESS, *_REGENERATE),
    AGENT_NOTIFICATIONS["endpoint-regenerate-failure"]: (flow_pb2.ENDPOINT_REGENERATE_FAILURE, *_REGENERATE),
    AGENT_NOTIFICATIONS["endpoint-created"]: (flow_pb2.ENDPOINT_CREATED, *_ENDPOINT),
    AGENT_NOTIFICATIONS["endpoint-deleted"]: (flow_pb2.ENDPOINT_DELETED, *_ENDPOINT),
    AGENT_NOTIFICATIONS["ipcache-upserted"]: (flow_pb2.IPCACHE_UPSERTED, *_IPCACHE),
    AGENT_NOTIFICATIONS["ipcache-deleted"]: (flow_pb2.IPCACHE_DELETED, *_IPCACHE),
}
"""By monitor number: type, name of the shape, a field that only this shape must have, how to fill it."""
