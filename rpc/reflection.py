"""Server reflection: tools such as grpcurl learn the API from the server itself.

In:        the services of a server.
Out:       their names and the descriptors of their files, in both versions of the protocol.
Elsewhere: standard.py defines the messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from rpc.call import Call, Service
from rpc.standard import message_class, service
from rpc.status import Status


def reflection_services(services: Sequence[Service]) -> list[Service]:
    """The two reflection services over `services` and themselves."""
    both = [_ReflectionV1(), _ReflectionV1Alpha()]
    described = [*services, *both]
    names = sorted(one.descriptor.full_name for one in described)
    pools = list({id(pool): pool for one in described if (pool := one.descriptor.file.pool)}.values())
    for one in both:
        one.names, one.pools = names, pools
    return list(both)


class _Reflection(Service):
    version: str
    names: Sequence[str]
    pools: Sequence[DescriptorPool]

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], call: Call) -> None:  # noqa: N802
        """Answer each question; a file is sent with those it imports, once per stream."""
        response_class = message_class(f"grpc.reflection.{self.version}.ServerReflectionResponse")
        sent: set[str] = set()
        async for request in requests:
            response = response_class(valid_host=request.host, original_request=request)
            self._answer(request, response, sent)
            await call.send_message(response)

    def _answer(self, request: Any, response: Any, sent: set[str]) -> None:
        question = request.WhichOneof("message_request")
        if question == "list_services":
            for name in self.names:
                response.list_services_response.service.add(name=name)
        elif question == "file_by_filename":
            self._answer_file(self._find("FindFileByName", request.file_by_filename), response, sent)
        elif question == "file_containing_symbol":
            self._answer_file(self._find("FindFileContainingSymbol", request.file_containing_symbol), response, sent)
        elif question == "all_extension_numbers_of_type":
            self._answer_no_extensions(request.all_extension_numbers_of_type, response)
        elif question == "file_containing_extension":
            _answer_not_found(response)
        else:
            response.error_response.error_code = int(Status.INVALID_ARGUMENT)
            response.error_response.error_message = "the request asks nothing"

    def _find(self, method: str, name: str) -> FileDescriptor | None:
        for pool in self.pools:
            try:
                found: FileDescriptor = getattr(pool, method)(name)
            except KeyError:
                continue
            return found
        return None

    def _answer_file(self, file: FileDescriptor | None, response: Any, sent: set[str]) -> None:
        if file is None:
            _answer_not_found(response)
            return
        files = [one for one in _with_imports(file) if one.name not in sent or one is file]
        sent.update(one.name for one in files)
        response.file_descriptor_response.file_descriptor_proto.extend(one.serialized_pb for one in files)

    def _answer_no_extensions(self, name: str, response: Any) -> None:
        # Messages of proto3 have no extensions, so the list of a known type is empty.
        if self._find("FindFileContainingSymbol", name) is None:
            _answer_not_found(response)
        else:
            response.all_extension_numbers_response.base_type_name = name


class _ReflectionV1(_Reflection):
    version = "v1"
    descriptor = service("grpc.reflection.v1.ServerReflection")


class _ReflectionV1Alpha(_Reflection):
    version = "v1alpha"
    descriptor = service("grpc.reflection.v1alpha.ServerReflection")


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """The file and all it imports, each once."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop(0)
        if one.name not in seen:
            seen.add(one.name)
            yield one
            waiting.extend(one.dependencies)


def _answer_not_found(response: Any) -> None:
    response.error_response.error_code = int(Status.NOT_FOUND)
    response.error_response.error_message = "not found"
