"""The files that Envoy watches: one for each list of resources.

In:        resources as plain data.
Out:       a folder of files, replaced as wholes, and only when something differs; the version of each.
Elsewhere: admin.py finds out which versions Envoy has taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from mesh.files import write_text_atomically
from service.failure import Failure

Tree = dict[str, Any]

TYPE: Final = "type.googleapis.com/"
LISTENER: Final = "envoy.config.listener.v3.Listener"
CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
ROUTE: Final = "envoy.config.route.v3.RouteConfiguration"
ENDPOINTS: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
EXTENSION: Final = "envoy.config.core.v3.TypedExtensionConfig"
LARGEST: Final = 32 * 2**20
"""Of a file: what Envoy reads in a few seconds, and holds in a fraction of its memory."""


class ResourceFiles:
    """A folder; belongs to the agent, Envoy reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions: dict[str, str] = {}
        """By the name of the file."""

    def prepare(self) -> None:
        """Make the folder. Raises: Failure."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Failure(
                f"cannot make {self.folder}: {error.strerror}; check the owner of the folder above"
            ) from error

    def source(self, name: str) -> Tree:
        """Envoy's name for a file of this folder."""
        return {"resource_api_version": "V3", "path_config_source": {"path": str(self._path(name))}}

    def write(self, name: str, kind: str, resources: Sequence[Tree]) -> str:
        """Make a file say this, unless it does; returns its version. Raises: Failure, also when it is too large."""
        typed = [{"@type": TYPE + kind, **one} for one in resources]
        body = orjson.dumps(typed)
        if len(body) > LARGEST:
            raise Failure(
                f"{name}: {len(body) >> 20} MiB of Envoy configuration, {LARGEST >> 20} are possible; "
                "use wider selectors or fewer rules"
            )
        version = sha256(body).hexdigest()[:16]
        if self.versions.get(name) != version:
            text = f'{{"version_info":"{version}","type_url":"{TYPE}{kind}","resources":{body.decode()}}}'
            write_text_atomically(self._path(name), text)
            self.versions[name] = version
        return version

    def has_all(self, names: Iterable[str]) -> bool:
        """Whether an earlier agent has left these."""
        return all(self._path(name).exists() for name in names)

    def keep(self, names: Iterable[str]) -> None:
        """Remove every other file."""
        wanted = {self._path(name) for name in names}
        for path in self.folder.glob("*.json"):
            if path not in wanted:
                path.unlink(missing_ok=True)
                self.versions.pop(path.stem, None)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def safe_name(kind: str, name: str) -> str:
    """A file's name for a resource whose own may hold anything."""
    return f"{kind}-{sha256(name.encode()).hexdigest()[:24]}"
