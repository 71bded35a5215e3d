"""`flowscope agent`."""

from __future__ import annotations

from cli.services import service_command

COMMAND = service_command(
    "agent",
    summary="Run one node of the mesh: endpoints, addresses and identities into the kernel's maps",
    config="mesh.config:AgentConfig",
    serve="mesh.main:serve",
)
