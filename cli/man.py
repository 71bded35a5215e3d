"""Manual pages, written from the definitions of commands and flags.

In:        the tree of commands.
Out:       one page in section 1 per command, as roff.
Elsewhere: help.py makes --help of the same definitions.
Source:    man(7), the classic macros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.command import HELP_FLAG, Call, Command, Flag, Tree
from cli.errors import CommandError
from cli.globals import command_tree
from cli.help import by_group, default_note, usage_lines


def pages(tree: Tree) -> Iterator[tuple[str, str]]:
    """All pages: file name, text."""
    for path in _paths(tree, (tree.root,)):
        yield "-".join(command.name for command in path) + ".1", page(tree, path)


def _paths(tree: Tree, path: tuple[Command, ...]) -> Iterator[tuple[Command, ...]]:
    yield path
    for child in tree.children(path[-1]):
        yield from _paths(tree, (*path, child))


def page(tree: Tree, path: Sequence[Command]) -> str:
    """The page of the last command of `path`."""
    command = path[-1]
    name = "-".join(step.name for step in path)
    lines = [
        f'.TH "{name.upper()}" "1" "" "Flowscope" "Flowscope manual"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(command.summary)}",
        ".SH SYNOPSIS",
    ]
    for usage in usage_lines(tree, path):
        lines += [f".B {escape(usage)}", ".br"]
    lines.append(".SH DESCRIPTION")
    for paragraph in (command.description or command.summary + ".").split("\n\n"):
        lines += [".PP", escape(paragraph)]
    children = sorted((one for one in tree.children(command) if not one.hidden), key=lambda one: one.name)
    if children:
        lines.append(".SH COMMANDS")
        for child in children:
            lines += [".TP", f".B {escape(child.name)}", escape(child.summary)]
    own = command.own_flags()
    names = {flag.name for flag in own}
    flags = [*own, HELP_FLAG, *(flag for flag in tree.global_flags if flag.name not in names)]
    for title, members in by_group(flags):
        lines.append(f".SH {escape(title.upper())}")
        for flag in members:
            lines += [".TP", _flag_head(flag), escape(flag.help + default_note(flag))]
    if command.examples:
        lines.append(".SH EXAMPLES")
        for example in command.examples:
            lines += [".PP", escape(example.purpose) + ":", ".PP", ".RS 4", ".nf", escape(example.line), ".fi", ".RE"]
    lines += [".SH ENVIRONMENT", ".PP", escape(_ENVIRONMENT)]
    related = [path[:-1]] if len(path) > 1 else []
    related += [(*path, child) for child in children]
    if related:
        titles = ["-".join(step.name for step in one) for one in related]
        lines += [".SH SEE ALSO", ", ".join(f"\\fB{escape(title)}\\fR(1)" for title in titles)]
    return "\n".join(lines) + "\n"


_ENVIRONMENT = (
    "Connection flags can also be set as FLOWSCOPE_<NAME> or HUBBLE_<NAME>, in capitals and with underscores, and in "
    "the configuration file."
)


def _flag_head(flag: Flag) -> str:
    value = flag.value_name or flag.kind.type_name
    shown = f" \\fI{escape(value)}\\fR" if value and flag.kind.bare is None else ""
    short = f"\\fB\\-{flag.short}\\fR, " if flag.short else ""
    return f"{short}\\fB{escape('--' + flag.name)}\\fR{shown}"


def escape(text: str) -> str:
    """Text that roff prints as it is: dashes that can be copied, no line that begins like a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("^", "\\(ha")
    return "\\&" + text if text[:1] in (".", "'") else text


def run(call: Call) -> None:
    """`flowscope man [COMMAND...]`, `flowscope man --all DIR`. Raises: CommandError."""
    tree = command_tree()
    folder = call.text("all")
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, text in pages(tree):
                (Path(folder) / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write manual pages to {folder}: {error.strerror}") from error
        return
    from cli.output import write

    path, rest = tree.find(call.words)
    if rest:
        raise CommandError(f"no such command: {' '.join(call.words)}")
    write(page(tree, path))
