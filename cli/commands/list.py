"""`flowscope list nodes|namespaces`."""

from __future__ import annotations

from cli.command import Command, Example, Flag

_OUTPUT = Flag(
    name="output",
    short="o",
    default="table",
    value_name="form",
    help="table, wide or json",
    choices=("table", "wide", "json"),
)

COMMAND = Command(
    name="list",
    summary="List what the server knows",
    children=(
        Command(
            name="nodes",
            aliases=("node",),
            summary="List the nodes behind a relay",
            flags=(_OUTPUT,),
            examples=(Example("With versions and addresses", "flowscope list nodes -o wide"),),
            run="cli.server_info:list_nodes",
        ),
        Command(
            name="namespaces",
            summary="List the namespaces in which flows were seen lately",
            flags=(_OUTPUT,),
            examples=(Example("With clusters", "flowscope list namespaces -o wide"),),
            run="cli.server_info:list_namespaces",
        ),
    ),
)
