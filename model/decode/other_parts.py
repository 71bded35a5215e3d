"""What the records of DNS, Kafka and other protocols say, as parts of flow.Layer7 and as summaries.

In:        a record's parsed JSON.
Out:       the bytes of a message of the API, and the text of the flow's Summary.
Elsewhere: accesslog.py has the records' frame; http_parts.py is the same for HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from model.decode.http_parts import sized
from model.text.quote import quote
from model.vocabulary import DNS_RCODES, DNS_TYPES, UNKNOWN_DNS
from model.wire import BYTES, VARINT, number, tag
from proto.flow import flow_pb2

_DNS: Final = {field.name: tag(field.number, BYTES) for field in flow_pb2.DNS.DESCRIPTOR.fields}
_DNS_TTL: Final = tag(flow_pb2.DNS.DESCRIPTOR.fields_by_name["ttl"].number, VARINT)
_DNS_RCODE: Final = tag(flow_pb2.DNS.DESCRIPTOR.fields_by_name["rcode"].number, VARINT)


@lru_cache(maxsize=1024)
def _dns_types(field_tag: bytes, numbers: tuple[int, ...]) -> tuple[bytes, str]:
    """A repeated field of type names, and these joined by commas."""
    names = [DNS_TYPES.get(number, UNKNOWN_DNS) for number in numbers]
    return b"".join(sized(field_tag, name.encode()) for name in names), ",".join(names)


def _texts(field_tag: bytes, texts: Iterable[str]) -> bytes:
    return b"".join([sized(field_tag, text.encode("utf-8", "replace")) for text in texts])


def dns(record: Mapping[str, Any], kind: int) -> tuple[bytes, str]:
    """flow.DNS and its summary."""
    get = record.get
    query, source = get("Query") or "", get("ObservationSource") or ""
    body, types = _dns_types(_DNS["qtypes"], tuple(get("QTypes") or ()))
    body += sized(_DNS["query"], query.encode("utf-8", "replace"))
    if source:
        body += sized(_DNS["observation_source"], source.encode("utf-8", "replace"))
    if kind == flow_pb2.REQUEST:
        return body, f"DNS Query {query} {types}"
    ips, names, ttl, rcode = get("IPs") or (), get("CNAMEs") or (), get("TTL") or 0, get("RCode") or 0
    body += _texts(_DNS["ips"], ips) + _texts(_DNS["cnames"], names)
    body += number(_DNS_TTL, ttl) + number(_DNS_RCODE, rcode)
    body += _dns_types(_DNS["rrtypes"], tuple(get("AnswerTypes") or ()))[0]
    if kind != flow_pb2.RESPONSE:
        return body, ""
    if rcode:
        answer = f"RCode: {DNS_RCODES.get(rcode, UNKNOWN_DNS)}"
    else:
        answer = quote(",".join(ips)) if ips else ""
        if names:
            answer += f"{' ' if answer else ''}CNAMEs: {quote(','.join(names))}"
    who = "Proxy" if source == "proxy" else "Query"
    return body, f"DNS Answer {answer} TTL: {ttl} ({who} {query} {types})"


def kafka(record: Mapping[str, Any], kind: int) -> tuple[bytes, str]:
    """flow.Kafka and its summary."""
    topic = (record.get("Topic") or {}).get("Topic") or ""
    message = flow_pb2.Kafka(
        api_version=record.get("APIVersion") or 0,
        api_key=record.get("APIKey") or "",
        correlation_id=record.get("CorrelationID") or 0,
        topic=topic,
    )
    what = f"{message.api_key} correlation id {message.correlation_id} topic '{topic}'"
    if kind == flow_pb2.REQUEST:
        return message.SerializeToString(), f"Kafka request {what}"
    message.error_code = record.get("ErrorCode") or 0
    return message.SerializeToString(), f"Kafka response {what} return code {message.error_code}"


def generic_summary(other: Mapping[str, Any]) -> str:
    """Of a protocol that the API has no message for: its fields in the notation of Go's maps."""
    fields: Iterable[tuple[str, Any]] = sorted((other.get("fields") or other.get("Fields") or {}).items())
    pairs = " ".join(f"{key}:{value}" for key, value in fields)
    return f"{other.get('proto') or other.get('Proto') or ''} Fields: map[{pairs}]"
