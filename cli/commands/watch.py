"""`flowscope watch peers`."""

from __future__ import annotations

from cli.command import Command, Example

COMMAND = Command(
    name="watch",
    aliases=("w",),
    summary="Watch what changes",
    hidden=True,
    children=(
        Command(
            name="peers",
            aliases=("peer",),
            summary="Watch the peers that a node announces",
            examples=(Example("On a node", "flowscope watch peers --server unix:///run/flowscope/observer.sock"),),
            run="cli.server_info:watch_peers",
        ),
    ),
)
