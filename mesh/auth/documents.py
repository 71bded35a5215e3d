"""CertificateSigningRequest and ClusterTrustBundle, as Kubernetes has them.

In:        what nodes ask for; what the controller answers.
Out:       frozen models.
Elsewhere: keyring.py writes requests; issuing.py signs them.
"""

from __future__ import annotations

import base64
from typing import Final, Literal

from mesh.ingress.secrets import Base64
from mesh.resources.base import Condition, Model, Resource

SIGNER: Final = "flowscope.io/mutual-auth"
BUNDLE: Final = "flowscope.io.mutual-auth"
"""Name of the bundle. (Kubernetes has `:` after the signer's domain; our names are DNS names.)"""
NODE_USER: Final = "system:node:"
"""Who asks: this and the node's name."""


class SigningRequestSpec(Model):
    request: Base64
    """PEM."""
    signer_name: str
    usages: tuple[str, ...] = ()
    username: str = ""
    expiration_seconds: int | None = None
    """How long the certificate is to hold; it may get less."""
    ignored = frozenset({"uid", "groups", "extra"})


class SigningRequestStatus(Model):
    certificate: Base64 | None = None
    """PEM; none: not signed."""
    conditions: tuple[Condition, ...] = ()


class CertificateSigningRequest(Resource):
    kind: Literal["CertificateSigningRequest"] = "CertificateSigningRequest"
    spec: SigningRequestSpec
    status: SigningRequestStatus = SigningRequestStatus()

    @property
    def request(self) -> str:
        return _text(self.spec.request)

    @property
    def certificate(self) -> str:
        """Empty: not signed."""
        return _text(self.status.certificate or "")


class TrustBundleSpec(Model):
    signer_name: str = ""
    trust_bundle: str
    """PEM."""


class ClusterTrustBundle(Resource):
    kind: Literal["ClusterTrustBundle"] = "ClusterTrustBundle"
    spec: TrustBundleSpec


def encoded(pem: str) -> str:
    """PEM text as a request has it."""
    return base64.b64encode(pem.encode()).decode()


def _text(raw: str) -> str:
    return base64.b64decode("".join(raw.split())).decode(errors="replace")
