"""`flowscope man`."""

from __future__ import annotations

from cli.command import Command, Example, Flag

COMMAND = Command(
    name="man",
    summary="Print the manual page of a command",
    arguments="[COMMAND...]",
    flags=(
        Flag(name="all", value_name="dir", help="write the pages of all commands into this folder", completes="dir"),
    ),
    examples=(
        Example("Read one page", "flowscope man observe | man -l -"),
        Example("Install them all", "flowscope man --all /usr/local/share/man/man1"),
    ),
    run="cli.man:run",
    checks_server_flags=False,
)
