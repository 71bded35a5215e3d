"""`flowscope config view|get|set|reset`."""

from __future__ import annotations

from collections.abc import Sequence

from cli.command import Call, Command, Example
from cli.globals import GLOBAL_FLAGS


def _keys(_call: Call) -> Sequence[str]:
    return sorted(flag.name for flag in GLOBAL_FLAGS)


COMMAND = Command(
    name="config",
    summary="Show and change the settings of the command line",
    description=(
        "Show and change the settings of the command line.\n\n"
        "A setting comes from its flag, else from the environment (FLOWSCOPE_TLS_SERVER_NAME or HUBBLE_TLS_SERVER_NAME "
        "for --tls-server-name), else from the file, else it has its default. Services have settings of their own; see "
        "the help of each."
    ),
    examples=(
        Example("Ask this relay from now on", "flowscope config set server relay.example.org:4245"),
        Example("What is in force", "flowscope config view"),
    ),
    checks_server_flags=False,
    children=(
        Command(
            name="view",
            summary="Show all settings",
            run="cli.config_file:view",
            checks_server_flags=False,
        ),
        Command(
            name="get",
            summary="Show one setting",
            arguments="[KEY]",
            run="cli.config_file:get",
            words=_keys,
            checks_server_flags=False,
        ),
        Command(
            name="set",
            summary="Write one setting into the file; without a value its default",
            arguments="KEY [VALUE]",
            run="cli.config_file:set_key",
            words=_keys,
            checks_server_flags=False,
        ),
        Command(
            name="reset",
            summary="Write the default of one setting, or of all, into the file",
            arguments="[KEY]",
            run="cli.config_file:reset",
            words=_keys,
            checks_server_flags=False,
        ),
    ),
)
