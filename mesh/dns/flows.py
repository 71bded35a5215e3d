"""Queries and answers as access-log records.

In:        who asked whom what; what was decided, and what was answered.
Out:       one JSON object each, as bytes, for mesh/records.py.
Elsewhere: model/decode/accesslog.py reads them. Source: spec/events.md section 16.

The parts that repeat are made once per client and server; what is left for each message is a name and some numbers.
"""

from __future__ import annotations

import time
from typing import Final

import orjson

from mesh.dns.answers import Reply
from mesh.dns.judge import Scope

NO_TTL: Final = 0xFFFFFFFF
"""Of an answer without records."""
FORWARDED: Final = "Forwarded"
DENIED: Final = "Denied"
ERROR: Final = "Error"


def stamp(now_ns: int) -> str:
    """RFC 3339 with nanoseconds."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


_last: tuple[int, str] = (0, "")


def _second(seconds: int) -> str:
    """All messages of a second share its text."""
    global _last
    if _last[0] != seconds:
        _last = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return _last[1]


class Flows:
    """Makes the records of one scope."""

    def __init__(self, scope: Scope) -> None:
        version = "ipv6" if ":" in scope.server else "ipv4"
        client = {
            "id": scope.client.endpoint,
            "ipv4": scope.client.ipv4,
            "ipv6": scope.client.ipv6,
            "identity": scope.client.identity,
            "labels": scope.client.labels,
        }
        server = {
            version: scope.server,
            "port": scope.port,
            "identity": scope.server_identity,
            "labels": scope.server_labels,
        }
        # The client's port comes last in its object, so that it can be put there.
        asking = orjson.dumps(client)[:-1] + b',"port":%d}'
        asked = orjson.dumps(server)
        rest = b'"observation_point":"Egress","ip_version":"%s","transport_protocol":%d,' % (
            version.encode(),
            scope.protocol,
        )
        asking, asked = _safe(asking), _whole(asked)
        self._query = (
            b'{"type":"Request",' + rest + b'"source_endpoint":' + asking + b',"destination_endpoint":' + asked
        )
        self._answer = (
            b'{"type":"Response",' + rest + b'"source_endpoint":' + asked + b',"destination_endpoint":' + asking
        )

    def query(self, port: int, name: str, rtype: int, verdict: str, now_ns: int) -> bytes:
        """A query, as the proxy decided about it."""
        return b'%b,"timestamp":"%b","verdict":"%b","dns":{"Query":%b,"ObservationSource":"proxy","QTypes":[%d]}}' % (
            self._query % port,
            stamp(now_ns).encode(),
            verdict.encode(),
            orjson.dumps(name),
            rtype,
        )

    def answer(self, port: int, name: str, rtype: int, reply: Reply, now_ns: int, latency_ns: int) -> bytes:
        """What the server said."""
        return (
            b'%b,"timestamp":"%b","verdict":"Forwarded","latency_ns":%d,"dns":{"Query":%b,"ObservationSource":"proxy",'
            b'"QTypes":[%d],"IPs":%b,"TTL":%d,"CNAMEs":%b,"RCode":%d,"AnswerTypes":%b}}'
            % (
                self._answer % port,
                stamp(now_ns).encode(),
                latency_ns,
                orjson.dumps(name),
                rtype,
                orjson.dumps([str(one) for one in reply.addresses]),
                NO_TTL if reply.ttl_s is None else reply.ttl_s,
                orjson.dumps(reply.aliases),
                reply.code,
                orjson.dumps(reply.types),
            )
        )


def _whole(text: bytes) -> bytes:
    """As it is, inside a template."""
    return text.replace(b"%", b"%%")


def _safe(template: bytes) -> bytes:
    """A template with one number at its end; all before it is as it is."""
    body, number = template.rsplit(b"%d", 1)
    return _whole(body) + b"%d" + number
