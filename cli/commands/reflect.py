"""`flowscope reflect`."""

from __future__ import annotations

from cli.command import Command

COMMAND = Command(
    name="reflect",
    summary="Print the API of the server as descriptors, one JSON object per line",
    hidden=True,
    run="cli.server_info:reflect",
)
