"""The controller's part: certifies that a node has pods of an identity.

In:        requests of nodes in the resource store; the authority, a file beside the store.
Out:       certificates in the requests' status; the bundle that tells everybody whom to believe.
Elsewhere: keyring.py asks; certificates.py signs; leader.py calls after each change.

Only the process that decides for the cluster opens the authority, and keys of identities never leave their node.
Without requests nothing is done or made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from mesh.auth.certificates import Authority, BadCertificate
from mesh.auth.documents import BUNDLE, NODE_USER, SIGNER, CertificateSigningRequest, ClusterTrustBundle, encoded
from mesh.auth.spiffe import may_prove
from mesh.cluster import Cluster
from mesh.config import LONGEST_PROOF_S
from mesh.files import write_text_atomically
from mesh.knowledge import Identities
from mesh.resources.base import Condition, Resource, changed
from mesh.resources.manifests import parse_manifest
from mesh.store import Store, Update
from service.failure import Failure

LONGEST: Final = timedelta(seconds=LONGEST_PROOF_S)
DEFAULT: Final = timedelta(hours=1)
KIND: Final = "CertificateSigningRequest"


def request_name(node: str, identity: int) -> str:
    """What a node's request for an identity is called."""
    return f"{node}.{identity}"


class Issuer:
    """Owns the authority's file, which is made when somebody asks for the first time."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._authority: Authority | None = None

    def serve(self, store: Store, cluster_name: str) -> Update:
        """Answer requests. Raises: Failure when the authority cannot be used."""
        if not any(_is_ours(one) for one in store.find(KIND)):
            return Update()
        now = datetime.fromtimestamp(self._clock(), UTC)
        authority = self._open(now)
        return store.update(lambda resources: issue(resources, authority, cluster_name, now))

    def _open(self, now: datetime) -> Authority:
        if self._authority is None:
            try:
                self._authority = Authority(self._file.read_text())
            except FileNotFoundError:
                self._authority = Authority.create(now)
                write_text_atomically(self._file, self._authority.pem, mode=0o600)
            except (OSError, BadCertificate) as error:
                raise Failure(
                    f"cannot use the authority in {self._file}: {error}; remove it, and all certificates are made anew"
                ) from None
        return self._authority


def issue(resources: Sequence[Resource], authority: Authority, cluster_name: str, now: datetime) -> Update:
    """What is to be written for the requests among the resources. Requests of nobody who may ask go."""
    cluster = Cluster(resources)
    nodes = {one.name for one in cluster.nodes()}
    here = _identities(cluster, cluster_name)
    _publish(cluster, authority)
    for one in [one for one in resources if isinstance(one, CertificateSigningRequest) and _is_ours(one)]:
        node, identity = _asked(one)
        if node not in nodes or identity not in here.get(node, ()):
            cluster.remove(one.key)
        elif not _is_answered(authority, one.certificate, one.request):
            cluster.put(_answer(one, identity, authority, now))
    return cluster.update()


def _is_ours(one: Resource) -> bool:
    return isinstance(one, CertificateSigningRequest) and one.spec.signer_name == SIGNER


def _asked(one: CertificateSigningRequest) -> tuple[str, int]:
    """Node and identity of a request; 0 for a name that no node gives."""
    node, _, number = one.name.rpartition(".")
    identity = int(number) if number.isdecimal() and len(number) < 10 else 0
    valid = may_prove(identity) and one.spec.username == NODE_USER + node and one.name == request_name(node, identity)
    return node, identity if valid else 0


def _identities(cluster: Cluster, cluster_name: str) -> dict[str, set[int]]:
    """Identities of pods, by node."""
    facts, found = Identities(cluster, cluster_name), dict[str, set[int]]()
    for pod in cluster.pods():
        if not pod.spec.host_network:
            found.setdefault(pod.spec.node_name, set()).add(facts.number(pod))
    return found


def _publish(cluster: Cluster, authority: Authority) -> None:
    wanted = parse_manifest(
        {
            "apiVersion": "certificates.k8s.io/v1beta1",
            "kind": "ClusterTrustBundle",
            "metadata": {"name": BUNDLE},
            "spec": {"signerName": SIGNER, "trustBundle": authority.trust},
        }
    )
    old = cluster.resources.get(wanted.key)
    if not isinstance(old, ClusterTrustBundle) or old.spec.trust_bundle != authority.trust:
        cluster.put(wanted)


# A request stays what it was for as long as its certificate holds; looking at it again costs more than the rest.
@lru_cache(maxsize=4096)
def _is_answered(authority: Authority, certificate: str, request: str) -> bool:
    return bool(certificate) and authority.has_signed(certificate, request)


def _answer(
    one: CertificateSigningRequest, identity: int, authority: Authority, now: datetime
) -> CertificateSigningRequest:
    seconds = one.spec.expiration_seconds
    lifetime = min(LONGEST, timedelta(seconds=max(1, seconds)) if seconds is not None else DEFAULT)
    try:
        certificate = authority.sign(one.request, identity, now, lifetime)
    except BadCertificate as error:
        return changed(one, status=changed(one.status, conditions=(_condition("Failed", "Refused", str(error)),)))
    condition = _condition("Approved", "AutoApproved", f"the node has pods of identity {identity}")
    status = changed(one.status, certificate=encoded(certificate), conditions=(condition,))
    return changed(one, status=status)


def _condition(kind: str, reason: str, message: str) -> Condition:
    return Condition(type=kind, status="True", reason=reason, message=message)


def bundle_among(resources: Iterable[Resource]) -> str:
    """What tells whom to believe, as PEM text; empty while nobody has been certified."""
    bundles = (one for one in resources if isinstance(one, ClusterTrustBundle))
    return next((one.spec.trust_bundle for one in bundles if one.spec.signer_name == SIGNER), "")
