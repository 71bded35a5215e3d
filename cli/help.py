"""Help texts, written from the definitions of commands and flags.

In:        a command, its place in the tree.
Out:       the text that `--help` prints.
Elsewhere: man.py writes manual pages and completion.py shell completion from the same definitions.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from cli.command import HELP_FLAG, Command, Flag, Tree

WIDTH = 110


def help_text(tree: Tree, path: Sequence[Command]) -> str:
    """The help of the last command of `path`."""
    command = path[-1]
    description = command.description or command.summary + "."
    blocks = [textwrap.fill(paragraph, WIDTH, break_on_hyphens=False) for paragraph in description.split("\n\n")]
    name = " ".join(step.name for step in path)
    blocks.append("Usage:\n" + "\n".join(f"  {line}" for line in usage_lines(tree, path)))
    if command.aliases:
        blocks.append("Aliases:\n  " + ", ".join((command.name, *command.aliases)))
    if command.examples:
        lines = [f"  # {example.purpose}\n  {example.line}" for example in command.examples]
        blocks.append("Examples:\n" + "\n\n".join(lines))
    children = [child for child in tree.children(command) if not child.hidden]
    if children:
        width = max(len(child.name) for child in children)
        rows = [f"  {child.name:<{width}}  {child.summary}" for child in sorted(children, key=lambda child: child.name)]
        blocks.append("Commands:\n" + "\n".join(rows))
    own = [*command.own_flags(), HELP_FLAG]
    names = {flag.name for flag in own}
    inherited = [] if command is tree.root else [flag for flag in tree.global_flags if flag.name not in names]
    if command is tree.root:
        own += tree.global_flags
    for title, flags in by_group(own):
        blocks.append(f"{title}:\n" + "\n".join(flag_lines(flags)))
    if inherited and command.checks_server_flags:
        blocks.append("Connection and other global flags:\n" + "\n".join(flag_lines(inherited)))
    if children:
        blocks.append(f"More about a command: {name} <command> --help")
    return "\n\n".join(blocks) + "\n"


def usage_lines(tree: Tree, path: Sequence[Command]) -> list[str]:
    """How the command is typed."""
    command = path[-1]
    name = " ".join(step.name for step in path)
    lines = []
    if command.run is not None:
        lines.append(f"{name} [flags]" + (f" {command.arguments}" if command.arguments else ""))
    if command is tree.root or command.children:
        lines.append(f"{name} <command> [flags]")
    return lines


def by_group(flags: Iterable[Flag]) -> list[tuple[str, list[Flag]]]:
    """Visible flags under their headings, in order of first appearance; `Other` last."""
    groups: dict[str, list[Flag]] = {}
    for flag in flags:
        if not flag.hidden:
            groups.setdefault(flag.group, []).append(flag)
    return sorted(groups.items(), key=lambda group: group[0] == "Other")


def flag_head(flag: Flag) -> str:
    """`-o, --output string`."""
    short = f"-{flag.short}, " if flag.short else "    "
    value = flag.value_name or flag.kind.type_name
    return f"{short}--{flag.name}" + (f" {value}" if value and flag.kind.bare is None else "")


def default_note(flag: Flag) -> str:
    """`(default 5s)`, or nothing when the default is the zero value."""
    if flag.value in (None, flag.kind.zero):
        return ""
    return f" (default {flag.kind.show(flag.value)})"


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """One flag per entry, help text aligned and wrapped."""
    heads = [flag_head(flag) for flag in flags]
    column = min(max(map(len, heads)) + 2, 36)
    lines = []
    for flag, head in zip(flags, heads, strict=True):
        wrapped = textwrap.wrap(
            flag.help + default_note(flag), max(30, WIDTH - column - 2), break_on_hyphens=False, break_long_words=False
        )
        first = f"  {head:<{column}}{wrapped[0]}" if len(head) < column else f"  {head}\n  {'':<{column}}{wrapped[0]}"
        lines += [first, *(f"  {'':<{column}}{line}" for line in wrapped[1:])]
    return lines
