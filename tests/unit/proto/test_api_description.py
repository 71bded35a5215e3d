"""Our descriptors against the description of the API: packages, messages, fields, enums, services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from proto.flow import flow_pb2
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2
from proto.peer import peer_pb2
from proto.relay import relay_pb2

FILES: dict[str, FileDescriptor] = {
    "flow": flow_pb2.DESCRIPTOR,
    "relay": relay_pb2.DESCRIPTOR,
    "observer": observer_pb2.DESCRIPTOR,
    "peer": peer_pb2.DESCRIPTOR,
}
SCALARS = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        "double",
        "float",
        "int64",
        "uint64",
        "int32",
        "fixed64",
        "fixed32",
        "bool",
        "string",
        "bytes",
        "uint32",
    )
}


def test_every_package_message_field_and_enum_has_its_name_and_number(spec: Path) -> None:
    described = json.loads((spec / "api.json").read_text())["packages"]
    assert set(described) == set(FILES)
    for package, file in FILES.items():
        assert file.name == described[package]["file"]
        assert file.package == package
        assert {m["full_name"]: fields_as_described(m) for m in described[package]["messages"]} == {
            message.full_name: [field_facts(field) for field in message.fields] for message in all_messages(file)
        }
        assert {e["full_name"]: {v["name"]: v["number"] for v in e["values"]} for e in described[package]["enums"]} == {
            enum.full_name: {value.name: value.number for value in enum.values} for enum in all_enums(file)
        }


def test_every_service_method_has_its_path_types_and_streaming(spec: Path) -> None:
    described = json.loads((spec / "api.json").read_text())["packages"]
    for package, file in FILES.items():
        expected = {m["path"]: m for service in described[package]["services"] for m in service["methods"]}
        found = {
            f"/{service.full_name}/{method.name}": method
            for service in file.services_by_name.values()
            for method in service.methods
        }
        assert set(found) == set(expected)
        for path, method in found.items():
            assert method.input_type.full_name == expected[path]["input"]
            assert method.output_type.full_name == expected[path]["output"]
            assert method.server_streaming == expected[path]["server_streaming"]
            assert method.client_streaming == expected[path]["client_streaming"]


def test_the_columnar_call_takes_the_same_request() -> None:
    method = columns_pb2.DESCRIPTOR.services_by_name["Columns"].methods_by_name["GetFlows"]
    assert method.input_type is observer_pb2.GetFlowsRequest.DESCRIPTOR
    assert method.server_streaming


def fields_as_described(message: dict[str, Any]) -> list[tuple[str, int, str, bool, str | None]]:
    return [(f["name"], f["number"], f["type"], f["label"] == "repeated", f.get("oneof")) for f in message["fields"]]


def field_facts(field: FieldDescriptor) -> tuple[str, int, str, bool, str | None]:
    if field.message_type is not None:
        kind = field.message_type.full_name
    elif field.enum_type is not None:
        kind = field.enum_type.full_name
    else:
        kind = SCALARS[field.type]
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.name, field.number, kind, field.is_repeated, oneof


def all_messages(file: FileDescriptor) -> list[Descriptor]:
    found: list[Descriptor] = []
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        found.append(message)
        waiting.extend(message.nested_types)
    return found


def all_enums(file: FileDescriptor) -> list[EnumDescriptor]:
    return [
        *file.enum_types_by_name.values(),
        *(enum for message in all_messages(file) for enum in message.enum_types),
    ]
