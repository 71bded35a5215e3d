"""The messages of gRPC's standard services: health (v1) and server reflection (v1 and its older name v1alpha).

In:        nothing; the definitions are written down here.
Out:       message classes and service descriptors.
Elsewhere: health.py and reflection.py answer the calls; our own messages are in proto/.

They live in a descriptor pool of their own, because a program may import other packages that define the same names in
the default pool, which refuses a second definition.
Source: gRPC's health.proto (grpc.health.v1) and reflection.proto (grpc.reflection.v1).
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor

FieldType = descriptor_pb2.FieldDescriptorProto.Type
BOOL, BYTES, INT32, STRING = (
    FieldType.Value("TYPE_BOOL"),
    FieldType.Value("TYPE_BYTES"),
    FieldType.Value("TYPE_INT32"),
    FieldType.Value("TYPE_STRING"),
)

POOL: Final = descriptor_pool.DescriptorPool()

Field = tuple[str, int, "int | str"]
"""Name, number, and a scalar type or the name of a message of the same file. A name that ends in * is repeated, one
that ends in | belongs to the message's oneof."""


def message_class(name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def service(name: str) -> ServiceDescriptor:
    """A service by its full name."""
    return POOL.FindServiceByName(name)


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str, oneof: str, fields: tuple[Field, ...]) -> None:
    message = file.message_type.add(name=name)
    if oneof:
        message.oneof_decl.add(name=oneof)
    for text, number, kind in fields:
        field = message.field.add(name=text.rstrip("*|"), number=number)
        field.label = field.LABEL_REPEATED if text.endswith("*") else field.LABEL_OPTIONAL
        if text.endswith("|"):
            field.oneof_index = 0
        if isinstance(kind, str):
            field.type_name = f".{file.package}.{kind}"
            field.type = field.TYPE_ENUM if kind.endswith("Status") else field.TYPE_MESSAGE
        else:
            field.type = kind  # type: ignore[assignment]


def _health() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    _add_message(file, "HealthCheckRequest", "", (("service", 1, STRING),))
    _add_message(file, "HealthCheckResponse", "", (("status", 1, "HealthCheckResponse.ServingStatus"),))
    states = file.message_type[1].enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        states.value.add(name=name, number=number)
    health = file.service.add(name="Health")
    for name, streaming in (("Check", False), ("Watch", True)):
        health.method.add(
            name=name,
            input_type=".grpc.health.v1.HealthCheckRequest",
            output_type=".grpc.health.v1.HealthCheckResponse",
            server_streaming=streaming,
        )
    return file


REFLECTION_MESSAGES: Final[dict[str, tuple[str, tuple[Field, ...]]]] = {
    "ServerReflectionRequest": (
        "message_request",
        (
            ("host", 1, STRING),
            ("file_by_filename|", 3, STRING),
            ("file_containing_symbol|", 4, STRING),
            ("file_containing_extension|", 5, "ExtensionRequest"),
            ("all_extension_numbers_of_type|", 6, STRING),
            ("list_services|", 7, STRING),
        ),
    ),
    "ExtensionRequest": ("", (("containing_type", 1, STRING), ("extension_number", 2, INT32))),
    "ServerReflectionResponse": (
        "message_response",
        (
            ("valid_host", 1, STRING),
            ("original_request", 2, "ServerReflectionRequest"),
            ("file_descriptor_response|", 4, "FileDescriptorResponse"),
            ("all_extension_numbers_response|", 5, "ExtensionNumberResponse"),
            ("list_services_response|", 6, "ListServiceResponse"),
            ("error_response|", 7, "ErrorResponse"),
        ),
    ),
    "FileDescriptorResponse": ("", (("file_descriptor_proto*", 1, BYTES),)),
    "ExtensionNumberResponse": ("", (("base_type_name", 1, STRING), ("extension_number*", 2, INT32))),
    "ListServiceResponse": ("", (("service*", 1, "ServiceResponse"),)),
    "ServiceResponse": ("", (("name", 1, STRING),)),
    "ErrorResponse": ("", (("error_code", 1, INT32), ("error_message", 2, STRING))),
}


def _reflection(version: str) -> descriptor_pb2.FileDescriptorProto:
    package = f"grpc.reflection.{version}"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"grpc/reflection/{version}/reflection.proto", package=package, syntax="proto3"
    )
    for name, (oneof, fields) in REFLECTION_MESSAGES.items():
        _add_message(file, name, oneof, fields)
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


for _file in (_health(), _reflection("v1"), _reflection("v1alpha")):
    POOL.Add(_file)
