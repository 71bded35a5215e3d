"""Requests and queries whose names, paths and headers are attacks; runs inside a pod.

In:        the server's name; which attacks, by the names of `HTTP` and `DNS`.
Out:       status lines and response codes on stdout, one for each, in order.
Elsewhere: tests/e2e/mesh/test_hostile.py says what must become of them in every output.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

TIMEOUT_S: Final = 20
PORT: Final = 8080

HTTP: Final = (
    b"GET /%1b[31mred%00%07%0d%0a HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /%e2%80%ae%c2%9b31m HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /\"'\\<script>window.pwned=1</script> HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /'><img/src=x/onerror=window.pwned=1> HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /=cmd|calc,;`$(id) HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /host HTTP/1.1\r\nHost: a'b%1b[31m\r\n\r\n",
    b"GET /host HTTP/1.1\r\nHost: user:secret@h\r\n\r\n",
    b"GET /host HTTP/1.1\r\nHost: " + b"y" * 3000 + b"\r\n\r\n",
    b"GET /agent HTTP/1.1\r\nHost: h\r\nUser-Agent: <script>window.pwned=1</script>\r\n\r\n",
    b"GET /agent HTTP/1.1\r\nHost: h\r\nUser-Agent: \xc2\x9b31m\xe2\x80\xaebidi\xe2\x80\xa8line\r\n\r\n",
    b'GET /agent HTTP/1.1\r\nHost: h\r\nUser-Agent: \xff\xfe\x80"q",\\\ttab\r\n\r\n',
    b"GET /ids HTTP/1.1\r\nHost: h\r\nX-Request-Id: <b>\xc2\x9b31m\r\nTraceparent: \xff\xe2\x80\xae\r\n\r\n",
    # Not even Envoy takes these.
    b"GET /\x1b[31m HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /\xc2\x9b31m HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: <script>window.pwned=1</script>\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: h\r\nUser-Agent: \x1b[31m\r\n\r\n",
    b"<SCRIPT> /x HTTP/1.1\r\nHost: h\r\n\r\n",
)
"""HTTP/1.1."""
HTTP2_PATHS: Final = (
    b"/two\xc2\x9b31m",
    b"/two\xe2\x80\xaebidi",
    b"/two\xff\xfe",
    b"/two<script>window.pwned=1</script>",
)
"""HTTP/2 carries bytes in paths for which HTTP/1.1 has no room, and Envoy lets these pass."""
DNS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"a.b", b"c"),
    (b"a\\b",),
    (b"\x1b[31mred",),
    (b"\xff\xfe",),
    (b"\xc2\x9b31m",),
    (b"\xe2\x80\xae",),
    (b"<script>window.pwned=1</script>",),
    (b'q"q',),
    (b"nul\0line\n",),
    (b"l" * 63,) * 3,
)
"""Labels of names."""


def _status(request: bytes) -> str:
    with socket.create_connection((sys.argv[1], PORT), TIMEOUT_S) as server:
        server.sendall(request)
        return server.recv(65536).split(b"\r\n")[0].decode("ascii", "replace")


def _literal(text: bytes) -> bytes:
    """A string of HPACK, uncoded, of less than 127 bytes (RFC 7541, section 5.2)."""
    return bytes((len(text),)) + text


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _http2(path: bytes) -> str:
    """Ask by HTTP/2, and say whether there was an answer."""
    pairs = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", path))
    block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in pairs)
    with socket.create_connection((sys.argv[1], PORT), TIMEOUT_S) as server:
        server.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, block))
        stream = server.makefile("rb")
        while head := stream.read(9):
            stream.read(int.from_bytes(head[:3], "big"))
            if (head[3], head[8]) == (1, 1):
                return "HTTP/2 answer"
    return "HTTP/2 end"


def _code(labels: tuple[bytes, ...]) -> str:
    with open("/etc/resolv.conf") as file:
        resolver = next(line.split()[1] for line in file if line.startswith("nameserver"))
    name = b"".join(bytes((len(one),)) + one for one in labels) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1), (resolver, 53))
        return f"DNS {sock.recv(4096)[3] & 15}"


if __name__ == "__main__":
    for line in (*map(_status, HTTP), *map(_http2, HTTP2_PATHS), *map(_code, DNS)):
        print(line)
