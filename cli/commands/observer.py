"""`flowscope observer`."""

from __future__ import annotations

from cli.services import service_command

COMMAND = service_command(
    "observer",
    summary="Watch one node: read its events, keep the latest flows, serve them",
    config="observer.config:ObserverConfig",
    serve="observer.main:serve",
)
