"""What a server can tell besides flows: status, nodes, namespaces, peers, its API.

In:        a Call.
Out:       text on stdout.
Elsewhere: connection.py connects; model/text/status.py words the answers.
"""

from __future__ import annotations

from typing import Any, Final

from cli import log
from cli.command import Call
from cli.connection import Server, call
from cli.errors import CommandError
from cli.output import write
from cli.settings import load_settings
from model.text.flows import Output
from model.text.status import namespaces_text, nodes_text, peer_kind, peer_text, status_text
from proto.observer import observer_pb2
from rpc.health import OBSERVER, SERVING
from rpc.standard import message_class
from rpc.status import RpcError, Status

_OUTPUTS: Final = {
    "compact": Output.COMPACT,
    "dict": Output.DICT,
    "json": Output.JSON,
    "JSON": Output.JSON,
    "jsonpb": Output.JSON,
    "tab": Output.TABLE,
    "table": Output.TABLE,
}
_LISTS: Final = ("table", "wide", "json")


def status(command: Call) -> None:
    """Health, then ServerStatus."""
    settings = load_settings(command)
    log.show_debug(settings.on("debug"))
    name = command.text("output")
    address = settings.text("server").removeprefix("tls://")

    async def work(server: Server) -> None:
        health = message_class("grpc.health.v1.HealthCheckResponse")
        request = message_class("grpc.health.v1.HealthCheckRequest")(service=OBSERVER)
        try:
            answer: Any = await server.unary("/grpc.health.v1.Health/Check", request, health)
        except RpcError as error:
            raise CommandError(f"failed getting status: {error}") from error
        if name == "compact":
            write(f"Healthcheck (via {address}): {_health_text(answer)}\n")
        if answer.status != SERVING:
            raise CommandError("not healthy")
        try:
            reply = await server.unary(
                "/observer.Observer/ServerStatus",
                observer_pb2.ServerStatusRequest(),
                observer_pb2.ServerStatusResponse,
            )
        except RpcError as error:
            raise CommandError(f"failed to get hubble server status: {error}") from error
        if name not in _OUTPUTS:
            raise CommandError(f"invalid output format: {name}")
        write(status_text(reply, _OUTPUTS[name]))

    call(work, settings)


def _health_text(answer: Any) -> str:
    if answer.status == SERVING:
        return "Ok"
    field = answer.DESCRIPTOR.fields_by_name["status"]
    known = field.enum_type.values_by_number.get(answer.status)
    return f"Unavailable: {known.name if known else answer.status}"


def list_nodes(command: Call) -> None:
    """GetNodes."""
    output = command.text("output")

    async def work(server: Server) -> None:
        reply = await server.unary(
            "/observer.Observer/GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse
        )
        _check_list(output)
        write(nodes_text(reply.nodes, output))

    call(work, load_settings(command))


def list_namespaces(command: Call) -> None:
    """GetNamespaces."""
    output = command.text("output")

    async def work(server: Server) -> None:
        reply = await server.unary(
            "/observer.Observer/GetNamespaces",
            observer_pb2.GetNamespacesRequest(),
            observer_pb2.GetNamespacesResponse,
        )
        _check_list(output)
        write(namespaces_text(reply.namespaces, output))

    call(work, load_settings(command))


def _check_list(output: str) -> None:
    if output not in _LISTS:
        raise CommandError(f"unknown output format: {output}")


def watch_peers(command: Call) -> None:
    """Peer.Notify, until the stream ends."""
    from proto.peer import peer_pb2

    async def work(server: Server) -> None:
        async with server.stream("/peer.Peer/Notify", peer_pb2.NotifyRequest()) as stream:
            server.check_version(await stream.start())
            try:
                async for change in stream.messages(peer_pb2.ChangeNotification):
                    write(peer_text(change, peer_kind(peer_pb2, change.type)))
            except RpcError as error:
                if error.code is not Status.CANCELLED:
                    raise

    call(work, load_settings(command))


def reflect(command: Call) -> None:
    """The descriptors of all services but those about the server itself, one JSON object per file and line."""

    async def work(server: Server) -> None:
        questions = _Questions(server)
        listed = await questions.ask(list_services="")
        printed: set[str] = set()
        for service in listed.list_services_response.service:
            if not service.name.startswith(("grpc.reflection.", "grpc.health.")):
                await _print_files(questions, printed, file_containing_symbol=service.name)

    call(work, load_settings(command))


class _Questions:
    """Asks a server about itself, one stream per question, in the version of reflection that it speaks."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._versions = ["v1alpha", "v1"]

    async def ask(self, **question: str) -> Any:
        """Raises: RpcError; CommandError when the server refuses the question."""
        while True:
            package = f"grpc.reflection.{self._versions[0]}"
            request = message_class(f"{package}.ServerReflectionRequest")(**question)
            path = f"/{package}.ServerReflection/ServerReflectionInfo"
            try:
                reply = message_class(f"{package}.ServerReflectionResponse")
                answer: Any = await self._server.unary(path, request, reply)
            except RpcError as error:
                if error.code is not Status.UNIMPLEMENTED or len(self._versions) == 1:
                    raise
                del self._versions[0]
                continue
            if answer.HasField("error_response"):
                raise CommandError(f"unexpected response: {answer.error_response.error_message}")
            return answer


async def _print_files(questions: _Questions, printed: set[str], **question: str) -> None:
    import json

    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    answer = await questions.ask(**question)
    for data in answer.file_descriptor_response.file_descriptor_proto:
        file = FileDescriptorProto.FromString(data)
        if file.name in printed:
            continue
        printed.add(file.name)
        write(json.dumps(_plain(file), separators=(",", ":"), ensure_ascii=False) + "\n")
        for name in file.dependency:
            if name not in printed:
                await _print_files(questions, printed, file_by_filename=name)


def _plain(message: Any) -> dict[str, Any]:
    """A descriptor as plain values, enums as numbers: the form in which Go's JSON encoder writes its structs."""
    fields = sorted(message.ListFields(), key=lambda pair: pair[0].index)
    return {field.name: _plain_value(field, value) for field, value in fields if not field.is_extension}


def _plain_value(field: Any, value: Any) -> Any:
    if field.is_repeated:
        return [_plain(item) if field.message_type else item for item in value]
    return _plain(value) if field.message_type else value
