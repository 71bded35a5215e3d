"""Secret, as Kubernetes has it.

In:        data in base64, or text in stringData.
Out:       frozen models; their bytes on request.
Elsewhere: mesh/envoyconfig/translate.py makes Envoy's secrets of them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from mesh.resources.base import Resource

SECRETS_NAMESPACE: Final = "cilium-secrets"
"""Where copies of the secrets lie that Envoy needs."""


def _base64(text: str) -> str:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"must be base64: {error}") from None
    return text


Base64 = Annotated[str, AfterValidator(_base64)]


class Secret(Resource):
    kind: Literal["Secret"] = "Secret"
    type: str = "Opaque"
    data: Annotated[dict[str, Base64], Field(default_factory=dict)]
    string_data: Annotated[dict[str, str], Field(default_factory=dict)]
    ignored = frozenset({"immutable"})

    @property
    def keys(self) -> set[str]:
        return {*self.data, *self.string_data}

    def content(self, key: str) -> bytes:
        """The bytes behind a key; stringData wins, as in Kubernetes."""
        if key in self.string_data:
            return self.string_data[key].encode()
        return base64.b64decode("".join(self.data[key].split()))
