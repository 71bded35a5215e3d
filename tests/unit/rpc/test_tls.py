"""Names of nodes, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpc.tls import ClientTls, ServerTls, TlsError, client_context, node_server_name, server_context
from service.failure import Failure


@pytest.mark.parametrize(
    ("node", "cluster", "name"),
    [
        ("worker.2", "eu.west", "worker-2.eu-west.hubble-grpc.cilium.io"),
        ("worker", "", "worker.default.hubble-grpc.cilium.io"),
        ("hubble-peer", "default", "hubble-peer.default.hubble-grpc.cilium.io"),
        ("", "eu", ""),
    ],
)
def test_a_node_has_a_server_name(node: str, cluster: str, name: str) -> None:
    assert node_server_name(node, cluster) == name


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    with pytest.raises(TlsError, match=f"cannot load cert '{missing}': open {missing}: no such file or directory"):
        client_context(ClientTls(ca_files=(missing,)))


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    with pytest.raises(TlsError, match=f"cannot process cert '{junk}': must be a PEM encoded certificate"):
        client_context(ClientTls(ca_files=(str(junk),)))


def test_a_listener_refuses_unusable_files_at_once(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    with pytest.raises(Failure, match="both must be PEM"):
        server_context(ServerTls(cert_file=str(junk), key_file=str(junk)))
