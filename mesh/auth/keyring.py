"""A node's certificates: asked for, kept, renewed before they are over.

In:        identities of the node's pods; the resource store, where the controller answers.
Out:       requests to write there; a credential for each identity, ready for TLS.
Elsewhere: issuing.py signs; handshake.py uses credentials.

Keys are made here and stay here: in memory while a certificate is asked for, then in files that only root reads, so
that a restarted agent has them at once. Each certificate gets a key of its own.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.auth.certificates import BadCertificate, Certificate, is_signed_by, new_key, new_request
from mesh.auth.documents import NODE_USER, SIGNER, CertificateSigningRequest, SigningRequestSpec, encoded
from mesh.auth.issuing import KIND, bundle_among, request_name
from mesh.files import write_text_atomically
from mesh.resources.base import Key, Metadata, Resource
from service.failure import Failure

RENEWED_AFTER: Final = 0.5
"""Part of a certificate's time after which the next one is asked for."""
PATIENCE_S: Final = 10.0
"""A request that has been waiting this long is worth a word."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Proves an identity: a certificate and its key, in a file."""

    certificate: Certificate
    file: Path
    trust: str

    def client_context(self) -> ssl.SSLContext:
        """For asking another agent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Identities are no host names; handshake.py looks at the peer's SPIFFE id itself.
        context.check_hostname = False
        return self._loaded(context)

    def server_context(self) -> ssl.SSLContext:
        """For answering one."""
        return self._loaded(listening_context(self.trust))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.trust)
        context.load_cert_chain(self.file)
        return context


def listening_context(trust: str) -> ssl.SSLContext:
    """A server that has no certificate yet and believes those of `trust`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    # Each handshake is to show certificates; a resumed session would not.
    context.num_tickets = 0
    context.load_verify_locations(cadata=trust)
    return context


@dataclass(frozen=True, slots=True)
class _Asked:
    key: str
    request: str
    since_s: float


@dataclass(slots=True)
class Keyring:
    """Owns the folder. `trust` is the authority's certificate, empty while nobody has been certified."""

    folder: Path
    node: str
    lifetime_s: int
    clock: Callable[[], float] = time.time
    trust: str = ""
    _credentials: dict[int, Credential] = field(default_factory=dict)
    _asked: dict[int, _Asked] = field(default_factory=dict)

    def restore(self) -> None:
        """Take what an earlier agent has left. Raises: Failure when the folder cannot be made."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self.folder, 0o700)
        except OSError as error:
            raise Failure(f"cannot keep keys in {self.folder}: {error.strerror}; check its owner") from None
        for file in self.folder.glob("*.pem"):
            # Whatever cannot be used is asked for again.
            with suppress(OSError, BadCertificate):
                text = file.read_text()
                certificate = Certificate.parse(text)
                if certificate.fits(text) and file == self._file(certificate.identity):
                    self._credentials[certificate.identity] = Credential(certificate, file, "")

    def take(self, resources: Collection[Resource]) -> None:
        """Look what the controller has answered. Raises: Failure when a key cannot be kept."""
        self.trust = bundle_among(resources)
        for identity, credential in list(self._credentials.items()):
            if credential.trust != self.trust:
                self._believe(identity, credential)
        for identity, one in self._requests(resources).items():
            asked = self._asked.get(identity)
            if asked is not None and asked.request == one.request and one.certificate:
                self._keep(identity, asked, one.certificate)

    def ask(self, identities: Collection[int], resources: Collection[Resource]) -> tuple[list[Resource], list[Key]]:
        """Requests to write and to delete, so that there is a certificate for each of the identities and no other.

        After `take`, which knows what there is already.
        """
        for gone in self._credentials.keys() - identities:
            del self._credentials[gone]
            self._file(gone).unlink(missing_ok=True)
        for gone in self._asked.keys() - identities:
            del self._asked[gone]
        present = self._requests(resources)
        wanted: list[Resource] = []
        for identity in sorted(identities):
            asked = self._asked.get(identity)
            if asked is None and self._is_due(identity):
                key = new_key()
                asked = self._asked[identity] = _Asked(key, new_request(key, identity), self.clock())
            if asked is not None and (identity not in present or present[identity].request != asked.request):
                wanted.append(self._document(identity, asked.request))
        return wanted, [one.key for identity, one in present.items() if identity not in identities]

    def credential(self, identity: int) -> Credential | None:
        """What proves the identity now; None while there is nothing."""
        found = self._credentials.get(identity)
        return found if found is not None and found.trust and found.certificate.ends_s > self.clock() else None

    def missing(self) -> list[int]:
        """Identities whose certificates have been asked for long enough."""
        now_s = self.clock()
        return sorted(
            identity
            for identity, asked in self._asked.items()
            if now_s - asked.since_s > PATIENCE_S and self.credential(identity) is None
        )

    def count(self) -> int:
        """Certificates that hold now."""
        return sum(self.credential(identity) is not None for identity in self._credentials)

    def _is_due(self, identity: int) -> bool:
        found = self.credential(identity)
        if found is None:
            return True
        certificate = found.certificate
        return self.clock() > certificate.issued_s + RENEWED_AFTER * (certificate.ends_s - certificate.issued_s)

    def _believe(self, identity: int, credential: Credential) -> None:
        """The authority is another one than before; its certificates are all that counts."""
        if self.trust and is_signed_by(credential.certificate.pem, self.trust):
            self._credentials[identity] = Credential(credential.certificate, credential.file, self.trust)
        elif self.trust:
            del self._credentials[identity]
        else:
            self._credentials[identity] = Credential(credential.certificate, credential.file, "")

    def _keep(self, identity: int, asked: _Asked, pem: str) -> None:
        try:
            certificate = Certificate.parse(pem)
            good = certificate.identity == identity and certificate.fits(asked.key) and is_signed_by(pem, self.trust)
        except BadCertificate:
            good = False
        if not good or not self.trust:
            return
        file = self._file(identity)
        write_text_atomically(file, asked.key + certificate.pem, mode=0o600)
        self._credentials[identity] = Credential(certificate, file, self.trust)
        del self._asked[identity]

    def _requests(self, resources: Iterable[Resource]) -> Mapping[int, CertificateSigningRequest]:
        """This node's, by identity."""
        return {
            int(one.name.rpartition(".")[2]): one
            for one in resources
            if isinstance(one, CertificateSigningRequest)
            and one.spec.signer_name == SIGNER
            and one.spec.username == NODE_USER + self.node
            and one.name.rpartition(".")[2].isdecimal()
        }

    def _document(self, identity: int, request: str) -> CertificateSigningRequest:
        return CertificateSigningRequest(
            api_version="certificates.k8s.io/v1",
            kind=KIND,
            metadata=Metadata(name=request_name(self.node, identity)),
            spec=SigningRequestSpec(
                request=encoded(request),
                signer_name=SIGNER,
                usages=("digital signature", "client auth", "server auth"),
                username=NODE_USER + self.node,
                expiration_seconds=self.lifetime_s,
            ),
        )

    def _file(self, identity: int) -> Path:
        return self.folder / f"{identity}.pem"
