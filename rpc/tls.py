"""TLS on both sides: 1.3 or newer, files read again when they change, names of nodes.

In:        PEM files.
Out:       contexts for asyncio; a rotated certificate is used from the next handshake on, without a restart.
Elsewhere: server.py and client.py use the contexts; which files, say the settings of each service.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from service.failure import Failure

log = structlog.get_logger(component="tls")

DOMAIN: Final = "hubble-grpc.cilium.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Files of a listener. Client CA files turn on mTLS: a client then needs a certificate signed by one of them."""

    cert_file: str
    key_file: str
    client_ca_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How a client checks the server, and what it shows of itself."""

    ca_files: tuple[str, ...] = ()
    """PEM; none: the system's roots."""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    """Name that the server's certificate must carry; empty: the host of the target."""
    insecure: bool = False
    """Accept any certificate."""


class TlsError(Exception):
    """A certificate, key or CA file that cannot be used. The text names the file."""


def node_server_name(node: str, cluster: str = "") -> str:
    """The name in a node's certificate; empty for an empty node name.

    Source: api.md, section 1: dots become dashes, an empty cluster is `default`.
    """
    if not node:
        return ""
    return f"{node.replace('.', '-')}.{(cluster or 'default').replace('.', '-')}.{DOMAIN}"


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """A context for listeners, which follows its files.

    Raises: Failure when the files cannot be used now.
    """
    files = (tls.cert_file, tls.key_file, *tls.client_ca_files)
    try:
        first = _server_context(tls)
    except TlsError as error:
        raise Failure(str(error)) from error
    context = _Reloading(ssl.PROTOCOL_TLS_SERVER)
    context.follow(first, files, lambda: _server_context(tls))
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """A context for one connection; made anew for each, so files are read again.

    Raises: TlsError when the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_files:
        _load_authorities(context, tls.ca_files)
    else:
        context.load_default_certs()
    if tls.cert_file:
        _load_pair(context, tls.cert_file, tls.key_file)
    return context


class _Reloading(ssl.SSLContext):
    """Stands for the newest good context at every handshake.

    asyncio asks a context for one thing per connection, wrap_bio; reading files there is what makes rotation work.
    A context cannot forget authorities, so a change makes a new one instead of loading into the old.
    """

    _current: ssl.SSLContext
    _files: tuple[str, ...]
    _seen: tuple[object, ...]
    _make: Callable[[], ssl.SSLContext]

    def follow(self, first: ssl.SSLContext, files: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> None:
        self._current, self._files, self._make = first, files, make
        self._seen = _fingerprint(files)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        seen = _fingerprint(self._files)
        if seen != self._seen:
            self._seen = seen
            try:
                self._current = self._make()
                log.info("certificates read again", files=list(self._files))
            except TlsError as error:
                # A rotation in progress: the pair does not match yet. The old one serves until the next change.
                log.warning("certificates not usable, keeping the previous ones", error=str(error))
        return self._current.wrap_bio(*args, **kwargs)


def _server_context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    _load_pair(context, tls.cert_file, tls.key_file)
    if tls.client_ca_files:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, tls.client_ca_files)
    return context


def _load_pair(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    for path in (cert_file, key_file):
        _readable(path)
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"private key {key_file} does not belong to certificate {cert_file}") from error
        raise TlsError(
            f"cannot load certificate {cert_file} with key {key_file}: both must be PEM, the key without a password"
        ) from error
    except ValueError as error:
        raise TlsError(f"private key {key_file} has a password; use one without") from error


def _load_authorities(context: ssl.SSLContext, files: Sequence[str]) -> None:
    for path in files:
        _readable(path)
        try:
            context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise TlsError(f"cannot process cert '{path}': must be a PEM encoded certificate") from error


def _readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TlsError(f"cannot load cert '{path}': open {path}: {reason}") from error


def _no_password() -> bytes:
    # Without this, OpenSSL asks on the terminal.
    raise ValueError("encrypted key")


def _fingerprint(files: Sequence[str]) -> tuple[object, ...]:
    return tuple(map(_stamp, files))


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
