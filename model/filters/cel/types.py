"""Types of CEL values, and which may stand for which."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor


@dataclass(frozen=True, slots=True)
class Type:
    """A type by its name, with its parameters."""

    name: str
    args: tuple[Type, ...] = ()
    descriptor: Descriptor | None = field(default=None, compare=False)
    """Of a message type."""

    def __str__(self) -> str:
        """As error messages show it."""
        return f"{self.name}({', '.join(map(str, self.args))})" if self.args else self.name


BOOL: Final = Type("bool")
INT: Final = Type("int")
UINT: Final = Type("uint")
DOUBLE: Final = Type("double")
STRING: Final = Type("string")
BYTES: Final = Type("bytes")
NULL: Final = Type("null")
TIMESTAMP: Final = Type("timestamp")
DURATION: Final = Type("duration")
DYN: Final = Type("dyn")
TYPE: Final = Type("type")

FULL_NAMES: Final = {
    "null": "null_type",
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
}
"""Names that a type has outside of error messages about calls."""

WRAPPED: Final = {
    "BoolValue": BOOL,
    "Int32Value": INT,
    "Int64Value": INT,
    "UInt32Value": UINT,
    "UInt64Value": UINT,
    "FloatValue": DOUBLE,
    "DoubleValue": DOUBLE,
    "StringValue": STRING,
    "BytesValue": BYTES,
}

SCALARS: Final = {
    FieldDescriptor.CPPTYPE_BOOL: BOOL,
    FieldDescriptor.CPPTYPE_INT32: INT,
    FieldDescriptor.CPPTYPE_INT64: INT,
    FieldDescriptor.CPPTYPE_ENUM: INT,
    FieldDescriptor.CPPTYPE_UINT32: UINT,
    FieldDescriptor.CPPTYPE_UINT64: UINT,
    FieldDescriptor.CPPTYPE_FLOAT: DOUBLE,
    FieldDescriptor.CPPTYPE_DOUBLE: DOUBLE,
}


def list_of(element: Type) -> Type:
    """list(element)."""
    return Type("list", (element,))


def map_of(key: Type, value: Type) -> Type:
    """map(key, value)."""
    return Type("map", (key, value))


def wrapper_of(inner: Type) -> Type:
    """A value or null, such as flow.Flow.is_reply."""
    return Type("wrapper", (inner,))


def message_type(descriptor: Descriptor) -> Type:
    """The type of a message; those with a meaning of their own in CEL get that."""
    name = descriptor.full_name
    if name.startswith("google.protobuf."):
        short = descriptor.name
        if short in WRAPPED:
            return wrapper_of(WRAPPED[short])
        if short == "Timestamp":
            return TIMESTAMP
        if short == "Duration":
            return DURATION
        if short == "Any":
            return DYN
    return Type(name, descriptor=descriptor)


def field_type(described: FieldDescriptor) -> Type:
    """The type that selecting a field gives."""
    if described.message_type is not None:
        one = message_type(described.message_type)
    elif described.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = BYTES if described.type == FieldDescriptor.TYPE_BYTES else STRING
    else:
        one = SCALARS[described.cpp_type]
    return list_of(one) if described.is_repeated else one


def unwrapped(kind: Type) -> Type:
    """The type of the value where it is not null."""
    return kind.args[0] if kind.name == "wrapper" else kind


def fits(kind: Type, wanted: Type) -> bool:
    """Whether a value of `kind` may be passed where `wanted` is declared."""
    if DYN in (kind, wanted):
        return True
    kind = unwrapped(kind)
    if kind.name != wanted.name or len(kind.args) != len(wanted.args):
        return False
    return all(fits(inner, outer) for inner, outer in zip(kind.args, wanted.args, strict=True))


def comparable(one: Type, other: Type) -> bool:
    """Whether `==` is defined between two types: equal up to null and dyn."""
    if NULL in (one, other):
        return all(kind in (NULL, DYN, TIMESTAMP, DURATION) or nullable(kind) for kind in (one, other))
    return fits(one, unwrapped(other)) or fits(other, unwrapped(one))


def nullable(kind: Type) -> bool:
    """Whether null is a value of the type."""
    return kind.name == "wrapper" or kind.descriptor is not None


def joined(kinds: list[Type]) -> Type:
    """The one type of several alternatives; dyn when they have none."""
    first = next((kind for kind in kinds if kind != DYN), DYN)
    return first if all(kind == first for kind in kinds) else DYN
