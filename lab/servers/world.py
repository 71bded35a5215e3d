"""Servers of the world: HTTP on port 80 of every address there, HTTPS on port 443, and a port 53 that is silent.

In:        requests of pods.
Out:       200 and the name or address that was asked for.
Elsewhere: lab/world.py says which addresses there are; http.py speaks HTTP.

The certificate is made anew each time and signed by nobody: clients have to be told that they need not check it.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.servers.http import Handler, Request, Response, listen, serve
from lab.world import ALIASES, HTTP_PORT, HTTPS_PORT, NAMES, SILENT


def handler() -> Handler:
    """Answers everything alike."""

    def answer(request: Request) -> Response:
        host = request.headers.get("host", "")
        return Response(200, f"{host}{request.path}\n".encode(), (("Content-Type", "text/plain"),))

    return answer


def certified() -> ssl.SSLContext | None:
    """For TLS servers: a fresh certificate for all names there are; None without openssl."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = ",".join(f"DNS:{name}" for name in (*NAMES, *ALIASES))
    with TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        command = [
            "openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-days", "365", "-subj", "/CN=world", "-addext", f"subjectAltName={names}",
            "-keyout", str(key), "-out", str(certificate),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no HTTPS: cannot make a certificate: {error}; install openssl", file=sys.stderr)
            return None
        context.load_cert_chain(certificate, key)
    return context


def main() -> int:
    """Run the servers; returns the exit code."""
    context = certified()
    # Never read: queries fill its buffer, and then the kernel drops them.
    silence = listen(SILENT, 53, socket.SOCK_DGRAM)
    with silence:
        return serve(handler(), HTTP_PORT, secure=(HTTPS_PORT, context) if context else None)


if __name__ == "__main__":
    sys.exit(main())
