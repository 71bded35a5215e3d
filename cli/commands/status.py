"""`flowscope status`."""

from __future__ import annotations

from cli.command import Command, Example, Flag

COMMAND = Command(
    name="status",
    summary="Show health and size of the server",
    description="Show whether the server is healthy, how many flows it holds, and how many nodes stand behind it.",
    flags=(
        Flag(
            name="output",
            short="o",
            default="compact",
            value_name="form",
            help="compact, dict, table or json",
            choices=("compact", "dict", "table", "json"),
        ),
    ),
    examples=(
        Example("The relay on this machine", "flowscope status"),
        Example("One node", "flowscope status --server unix:///run/flowscope/observer.sock"),
    ),
    run="cli.server_info:status",
)
