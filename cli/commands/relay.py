"""`flowscope relay`."""

from __future__ import annotations

from cli.services import service_command

COMMAND = service_command(
    "relay",
    summary="Join the flows of all nodes into one stream, ordered by time",
    config="relay.config:RelayConfig",
    serve="relay.main:serve",
)
