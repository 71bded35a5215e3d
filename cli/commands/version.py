"""`flowscope version`."""

from __future__ import annotations

from cli.command import Call, Command


def _run(_call: Call) -> None:
    from cli.version import version_line

    print(version_line())


COMMAND = Command(name="version", summary="Print the version", run=_run)
