"""`flowscope help [command]`."""

from __future__ import annotations

import sys

from cli.command import Call, Command, UsageError
from cli.globals import command_tree
from cli.help import help_text


def _run(call: Call) -> None:
    tree = command_tree()
    try:
        path, rest = tree.find(call.words)
    except UsageError:
        path, rest = (tree.root,), call.words
    if rest:
        print(f"Unknown help topic {' '.join(call.words)!r}", file=sys.stderr)
        sys.stderr.write(help_text(tree, (tree.root,)))
        return
    sys.stdout.write(help_text(tree, path))


COMMAND = Command(name="help", summary="Help about any command", arguments="[command]", run=_run)
