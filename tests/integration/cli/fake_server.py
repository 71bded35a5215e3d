"""A server of the observer API that answers from a script and writes down what it was asked.

In:        a script as in the golden data: per method responses, an error, response metadata.
Out:       the address to connect to; the calls, in order, as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2

from proto.observer import observer_pb2
from proto.peer import peer_pb2

METHODS: dict[str, tuple[str, Any, Any, bool]] = {
    "GetFlows": ("observer.Observer", observer_pb2.GetFlowsRequest, observer_pb2.GetFlowsResponse, True),
    "GetAgentEvents": (
        "observer.Observer",
        observer_pb2.GetAgentEventsRequest,
        observer_pb2.GetAgentEventsResponse,
        True,
    ),
    "GetDebugEvents": (
        "observer.Observer",
        observer_pb2.GetDebugEventsRequest,
        observer_pb2.GetDebugEventsResponse,
        True,
    ),
    "GetNodes": ("observer.Observer", observer_pb2.GetNodesRequest, observer_pb2.GetNodesResponse, False),
    "GetNamespaces": (
        "observer.Observer",
        observer_pb2.GetNamespacesRequest,
        observer_pb2.GetNamespacesResponse,
        False,
    ),
    "ServerStatus": ("observer.Observer", observer_pb2.ServerStatusRequest, observer_pb2.ServerStatusResponse, False),
    "Notify": ("peer.Peer", peer_pb2.NotifyRequest, peer_pb2.ChangeNotification, True),
}


class FakeServer:
    """Use as a context manager."""

    def __init__(self, script: Mapping[str, Any]) -> None:
        self.script = script
        self.calls: list[dict[str, Any]] = []
        self.metadata: list[dict[str, str]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        by_service: dict[str, dict[str, Any]] = {}
        for name, (service, request, _, stream) in METHODS.items():
            make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
            handle = self._stream(name) if stream else self._unary(name)
            by_service.setdefault(service, {})[name] = make(
                handle,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        by_service["grpc.health.v1.Health"] = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            )
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, methods) for service, methods in by_service.items()]
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> FakeServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def _stream(self, name: str) -> Any:
        def handle(request: Any, context: Any) -> Iterator[Any]:
            yield from self._answer(name, request, context)

        return handle

    def _unary(self, name: str) -> Any:
        def handle(request: Any, context: Any) -> Any:
            return next(self._answer(name, request, context), METHODS[name][2]())

        return handle

    def _answer(self, name: str, request: Any, context: Any) -> Iterator[Any]:
        self.calls.append({"method": name, "request": as_json(request)})
        self.metadata.append(dict(context.invocation_metadata()))
        script = self.script.get(name, {})
        if script.get("metadata"):
            context.send_initial_metadata(list(script["metadata"].items()))
        for response in script.get("responses", []):
            yield json_format.ParseDict(response, METHODS[name][2]())
        if script.get("error"):
            code, message = script["error"]
            context.abort(grpc.StatusCode[code], message)

    def _check(self, request: Any, context: Any) -> Any:
        self.calls.append({"method": "Health.Check", "service": request.service})
        return health_pb2.HealthCheckResponse(status=self.script.get("health", 1))


def as_json(request: Any) -> dict[str, Any]:
    """A request in the form of the golden data: the field mask as a list of paths."""
    paths: list[str] = []
    if "field_mask" in request.DESCRIPTOR.fields_by_name:
        paths = list(request.field_mask.paths)
        request.ClearField("field_mask")
    shown = json_format.MessageToDict(request, preserving_proto_field_name=True)
    if paths:
        shown["field_mask"] = {"paths": paths}
    return shown
