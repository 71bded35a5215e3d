"""Envoy's protobuf messages from the JSON form that users write.

In:        plain data with "@type", as in the `resources` of a CiliumEnvoyConfig.
Out:       messages of the package xds-protos; `edit` changes messages in place, at any depth.
Elsewhere: validation.py asks Envoy about what protobuf cannot know, such as limits of values.

Source: spec/mesh.md section 2.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from google.protobuf import descriptor_pool, json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

URL: Final = "type.googleapis.com/"
LISTENER: Final = "envoy.config.listener.v3.Listener"
ROUTES: Final = "envoy.config.route.v3.RouteConfiguration"
CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
KINDS: Final = (LISTENER, ROUTES, CLUSTER, ENDPOINTS, SECRET)
"""What a resource may be."""

HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
"""Of a cluster, under this name too."""
TCP_PROXY: Final = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"

_PACKAGE: Final = re.compile(r"(envoy|xds|udpa)(\.[a-z][a-z0-9_]*)+")
_WELL_KNOWN: Final = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Duration"})
_POOL: Final = descriptor_pool.Default()
_MAX_DEPTH: Final = 60
"""Messages inside messages; protobuf itself stops at 100, Python's stack soon after."""


class InvalidEnvoyResource(ValueError):
    """Data that is not a message of Envoy's. The text names the field."""


def parse(raw: dict[str, Any]) -> Message:
    """The message that `raw` describes. The caller owns it.

    Raises: InvalidEnvoyResource for other types, unknown fields and values of the wrong type.
    """
    try:
        text = json.dumps(raw, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEnvoyResource(f"not JSON: {error}") from None
    name, data = _serialised(text)
    message: Message = new(name)
    message.ParseFromString(data)
    return message


@lru_cache(maxsize=1024)
def _serialised(text: str) -> tuple[str, bytes]:
    """Resources are parsed again with every round of the control plane, and rarely changed."""
    raw = json.loads(text)
    url = raw.get("@type")
    name = url.removeprefix(URL) if isinstance(url, str) else None
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise InvalidEnvoyResource(f"@type: must be {URL} and one of {known}, got {str(url)[:120]!r}")
    for path, inner in _types(raw, ""):
        if not _load(inner.removeprefix(URL)):
            raise InvalidEnvoyResource(f"{path}@type: Envoy has no type {inner[:120]!r}")
    holder = AnyMessage()
    try:
        json_format.ParseDict(raw, holder, max_recursion_depth=_MAX_DEPTH)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidEnvoyResource(_complaint(error, raw)) from None
    return name, holder.value


def _types(raw: object, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every "@type" in plain data with its place."""
    if depth > 3 * _MAX_DEPTH:
        raise InvalidEnvoyResource(f"{path[:80]}: nested too deeply")
    if isinstance(raw, dict):
        url = raw.get("@type")
        if isinstance(url, str):
            yield path, url
        for key, value in raw.items():
            yield from _types(value, f"{path}{key}.", depth + 1)
    elif isinstance(raw, list):
        for number, value in enumerate(raw):
            yield from _types(value, f"{path.removesuffix('.')}[{number}].", depth + 1)


_FIELDS: Final = re.compile(r"\s*Available Fields.*", re.S)
_UNKNOWN: Final = re.compile(r'Message type "([^"]+)" has no field named "([^"]+)" at "([^"]+)"')
_PREFIX: Final = re.compile(r"^Failed to parse (\S+) field: ")
_SUFFIX: Final = re.compile(r" at [\w.\[\]]+$")
_MAX_LOOKS: Final = 2000


def _complaint(error: Exception, raw: dict[str, Any]) -> str:
    """Protobuf's message, on one line, with the place and without the list of everything that it would have taken."""
    text = " ".join(_FIELDS.sub("", str(error)).split()).rstrip(".")
    while match := _PREFIX.match(text):
        text = text[match.end() :]
    if match := _UNKNOWN.search(text):
        _, _, path = match[3].partition(".")
        return f"{f'{path}: ' if path else ''}{match[1]} has no field {match[2][:80]!r}"
    path = _culprit(raw)
    text = _SUFFIX.sub("", text)[:300]
    return f"{path}: {text}" if path else text


def _culprit(raw: dict[str, Any]) -> str:
    """The field without which the rest can be read; empty when there is no such field, or too many to look at.

    Protobuf says where an unknown field is, but not where a value of the wrong type is.
    """
    looks = 0
    for path, holder, key in list(_leaves(raw, "")):
        if (looks := looks + 1) > _MAX_LOOKS:
            break
        kept = holder[key]
        holder[key] = None
        try:
            json_format.ParseDict(raw, AnyMessage(), max_recursion_depth=_MAX_DEPTH)
            return path
        except Exception:  # whatever is wrong elsewhere
            continue
        finally:
            holder[key] = kept
    return ""


def _leaves(raw: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Path, holder and key of every value but "@type", the deepest first."""
    for key, value in list(raw.items() if isinstance(raw, dict) else enumerate(raw)):
        here = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
        if isinstance(value, dict | list):
            yield from _leaves(value, here)
        if key != "@type":
            yield here, raw, key


@cache
def _load(name: str) -> bool:
    """Make the type known to protobuf. Each of Envoy's packages is imported when the first message needs it."""
    if name in _WELL_KNOWN:
        importlib.import_module("google.protobuf.struct_pb2")
        importlib.import_module("google.protobuf.duration_pb2")
        return True
    package = ".".join(part for part in name.split(".") if part[:1].islower())
    if not _PACKAGE.fullmatch(package):
        return False
    try:
        module = importlib.import_module(package)
    except ImportError:
        return False
    for one in pkgutil.iter_modules(module.__path__):
        if one.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{one.name}")
    try:
        _POOL.FindMessageTypeByName(name)
    except KeyError:
        return False
    return True


def new(type_name: str, /, **fields: Any) -> Any:
    """An empty message of the type called `type_name`, with `fields` in protobuf's JSON form."""
    if not _load(type_name):
        raise InvalidEnvoyResource(f"Envoy has no type {type_name!r}")
    for _, inner in _types(fields, ""):
        _load(inner.removeprefix(URL))
    message = GetMessageClass(_POOL.FindMessageTypeByName(type_name))()
    return json_format.ParseDict(fields, message) if fields else message


def packed(message: Message) -> AnyMessage:
    """The message as the value of a `typed_config`."""
    holder = AnyMessage()
    holder.Pack(message, deterministic=True)
    return holder


def unpacked(holder: AnyMessage) -> Any:
    """What a `typed_config` holds; None for a type that we have no definition of."""
    name = holder.type_url.rpartition("/")[2]
    if not name or not _load(name):
        return None
    message = new(name)
    message.ParseFromString(holder.value)
    return message


def to_plain(message: Message) -> dict[str, Any]:
    """Plain data with the field names of the .proto files; a typed message inside has its "@type"."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


Edit = Callable[[Any], None]


def edit(message: Message, edits: Mapping[str, Edit]) -> None:
    """Call the edit for every message of a named type inside `message` (and for itself), the innermost first.

    Typed messages (`google.protobuf.Any`) are opened, and packed again when something in them has changed.
    """
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for one in _messages(field, value):
                edit(one, edits)
    if isinstance(message, AnyMessage):
        inner = unpacked(message)
        if inner is not None:
            edit(inner, edits)
            message.Pack(inner, deterministic=True)
    change = edits.get(message.DESCRIPTOR.full_name)
    if change is not None:
        change(message)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        is_message = kind.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE
        return list(value.values()) if is_message else ()
    return [value] if isinstance(value, Message) else list(value)
