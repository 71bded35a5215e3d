"""Entry point of `flowscope`: parse, run, end with the right code.

In:        sys.argv.
Out:       exit code 0, or 1 with one message on stderr; help on stdout.
Elsewhere: command.py parses; commands/ says what each word does.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

from cli.command import Call, Tree, UsageError, resolve
from cli.errors import CommandError
from cli.globals import command_tree


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. Without `arguments`: that of this process, which ends with it."""
    if arguments is not None:
        return _run(arguments)
    # What is loaded now stays until the end: looking for garbage among it, the last time when the process ends, takes
    # a third of the time of short commands.
    gc.disable()
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()


def _run(arguments: Sequence[str]) -> int:
    tree = command_tree()
    if arguments[:1] == [_COMPLETE]:
        from cli.completion import run_complete

        return run_complete(tree, arguments[1:])
    try:
        call = tree.call(arguments)
    except UsageError as error:
        return _complain(str(error))
    try:
        code = execute(tree, call)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return die_of(signal.SIGPIPE)
    except KeyboardInterrupt:
        return die_of(signal.SIGINT)
    except (CommandError, UsageError) as error:
        return _complain(str(error))
    except Exception as error:
        if type(error).__module__ == "service.failure":
            return _complain(f"{tree.root.name}: {error}")
        if _debugging(call):
            raise
        words = " ".join(str(error).split()) or "no details"
        return _complain(f"{tree.root.name}: {type(error).__name__}: {words} (run with -D for the traceback)")


_COMPLETE = "__complete"
"""What completion scripts call; no command that a person types."""


def execute(tree: Tree, call: Call) -> int:
    """Run the command that was asked for, or print its help."""
    command = call.command
    if call.values.get("help") or command.run is None:
        if command is tree.root and call.values.get("version"):
            from cli.version import version

            # CR LF: what Go's template of the flag prints, and scripts strip.
            sys.stdout.write(f"hubble {version()}\r\n")
            return 0
        from cli.help import help_text

        sys.stdout.write(help_text(tree, call.path))
        return 0
    if command.checks_server_flags:
        from cli.settings import check_server_flags, load_settings, uses_tls

        settings = load_settings(call)
        check_server_flags(settings)
        if uses_tls(settings):
            from cli.connection import tls_files

            tls_files(settings)
    run = resolve(command.run) if isinstance(command.run, str) else command.run
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    result = run(call)
    return result if isinstance(result, int) else 0


def die_of(number: signal.Signals) -> int:
    """End as a process that never handled the signal ends, so that shells and pipelines see it."""
    # What is still buffered has no reader or is not wanted any more; keep the interpreter from writing it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _complain(message: str) -> int:
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return 1


def _debugging(call: Call) -> bool:
    return bool(call.values.get("debug"))


if __name__ == "__main__":
    sys.exit(main())
