"""What a command is, and how a line of arguments becomes a call of one.

In:        sys.argv-like words; commands/ holds the definitions.
Out:       a Call (the command, its flag values, its words), or Usage errors with Hubble's exact texts.
Elsewhere: help.py, completion.py and man.py write help, shell completion and manual pages from the same definitions;
           flags.py holds the kinds of values; commands/__init__.py says how to add a command.

Parsing follows what Hubble's users' fingers know: flags and words mix freely, `-ovalue`, `-o=value`, `--flag=value`,
`-fs` for two short flags, flags of the root are accepted anywhere, long names cannot be shortened. Imports nothing
heavy: `flowscope version` and `--help` answer within a few dozen milliseconds.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import cli.commands
from cli.flags import BOOL, TEXT, Kind
from model.text.quote import quote

PROGRAM: Final = "flowscope"
"""The name in help, completion and man pages."""
STANDS_FOR: Final = "hubble"
"""The name in error messages: scripts match on them."""


class UsageError(Exception):
    """The arguments make no sense; str() is the whole message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag of a command."""

    name: str
    help: str
    kind: Kind = TEXT
    short: str = ""
    default: object = None
    """None: the zero value of the kind."""
    group: str = "Flags"
    """Heading in help."""
    value_name: str = ""
    """Shown in place of the kind's type name."""
    hidden: bool = False
    bound: bool = False
    """Also read from the environment and the config file (settings.py)."""
    choices: tuple[str, ...] = ()
    """For completion and help; not enforced."""
    completes: str = ""
    """What the shell offers as values: `file`, `dir`, `pods`, `namespaces`, `nodes`, ... (completion.py)."""
    store: Callable[[dict[str, object], str], None] | None = None
    """Takes over from `kind.parse`: (all values so far, text). For flags that depend on their order."""

    @property
    def value(self) -> object:
        """The default value."""
        return self.kind.zero if self.default is None else self.default

    @property
    def dashed(self) -> str:
        """As in error texts: `--name`, or `-n, --name`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


@dataclass(frozen=True, slots=True)
class Example:
    """One line of help: what is achieved, and the command that does it."""

    purpose: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A word of the command line with what belongs to it."""

    name: str
    summary: str
    """One line, no full stop: for lists of commands."""
    description: str = ""
    """Paragraphs for help and man page; the summary is used when empty."""
    arguments: str = ""
    """Usage of the words behind the flags, e.g. `[KEY]`."""
    flags: tuple[Flag, ...] | Callable[[], tuple[Flag, ...]] = ()
    """A function when finding them out needs an import that other commands can do without."""
    examples: tuple[Example, ...] = ()
    aliases: tuple[str, ...] = ()
    hidden: bool = False
    children: tuple[Command, ...] = ()
    run: str | Callable[[Call], int | None] | None = None
    """`module:function`, imported when the command runs. None: print help."""
    checks_server_flags: bool = True
    """Whether contradictions among the flags of the connection are refused before the command runs."""
    raw: bool = False
    """Hand all words behind the name over unparsed (the command parses them itself)."""
    words: Callable[[Call], Sequence[str]] | None = None
    """Completion of words."""

    def own_flags(self) -> tuple[Flag, ...]:
        """The flags that only this command knows."""
        return self.flags() if callable(self.flags) else self.flags


HELP_FLAG: Final = Flag(name="help", short="h", kind=BOOL, help="show this help", group="Other")


@dataclass(slots=True, kw_only=True)
class Call:
    """A command about to run."""

    path: tuple[Command, ...]
    """From the root to the command."""
    values: dict[str, object]
    """By flag name: what the arguments say. Absent: not given."""
    words: list[str]
    flags: Mapping[str, Flag] = field(default_factory=dict)
    """All flags that were accepted, by name."""

    @property
    def command(self) -> Command:
        """The command that was meant."""
        return self.path[-1]

    def given(self, name: str) -> bool:
        """Whether the arguments name the flag."""
        return name in self.values

    def value(self, name: str) -> object:
        """Value of a flag: as given, else its default. Settings from files: settings.py."""
        if name in self.values:
            return self.values[name]
        return self.flags[name].value

    def text(self, name: str) -> str:
        """Value of a text flag."""
        return str(self.value(name))

    def on(self, name: str) -> bool:
        """Value of a yes/no flag."""
        return bool(self.value(name))

    def number(self, name: str) -> int:
        """Value of an integer or duration flag."""
        value = self.value(name)
        assert isinstance(value, int), name
        return value

    def items(self, name: str) -> tuple[str, ...]:
        """Value of a list flag."""
        value = self.value(name)
        assert isinstance(value, tuple), name
        return value


class Flags:
    """The flags that one command accepts, and the parser of its arguments."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self.by_name: dict[str, Flag] = {}
        self.by_short: dict[str, Flag] = {}
        for flag in flags:
            # The first one wins: a command may redefine a flag of the root.
            if flag.name not in self.by_name:
                self.by_name[flag.name] = flag
                if flag.short:
                    self.by_short.setdefault(flag.short, flag)

    def takes_next(self, word: str) -> bool:
        """Whether `word`, a flag without `=`, is followed by its value. Unknown flags are taken to be."""
        if word.startswith("--"):
            flag = self.by_name.get(word[2:])
            return flag is None or flag.kind.bare is None
        flag = self.by_short.get(word[1:2])
        return len(word) == 2 and (flag is None or flag.kind.bare is None)

    def parse(
        self, arguments: Sequence[str], values: dict[str, object] | None = None
    ) -> tuple[dict[str, object], list[str]]:
        """Flag values and words of `arguments`, in the order in which they stand.

        Raises: UsageError.
        """
        values = {} if values is None else values
        words: list[str] = []
        rest = list(reversed(arguments))
        while rest:
            word = rest.pop()
            if word == "--":
                words += reversed(rest)
                break
            if word.startswith("--"):
                self._long(word, rest, values)
            elif word.startswith("-") and len(word) > 1:
                self._short(word, rest, values)
            else:
                words.append(word)
        return values, words

    def _long(self, word: str, rest: list[str], values: dict[str, object]) -> None:
        name, equals, text = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}")
        flag = self.by_name.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}")
        if not equals:
            if flag.kind.bare is not None:
                text = flag.kind.bare
            elif rest:
                text = rest.pop()
            else:
                raise UsageError(f"flag needs an argument: --{name}")
        store(flag, text, values)

    def _short(self, word: str, rest: list[str], values: dict[str, object]) -> None:
        letters = word[1:]
        while letters:
            letter, tail = letters[0], letters[1:]
            flag = self.by_short.get(letter)
            if flag is None:
                raise UsageError(f"unknown shorthand flag: '{quote(letter)[1:-1]}' in -{letters}")
            if len(letters) > 2 and tail[0] == "=":
                text, letters = tail[1:], ""
            elif flag.kind.bare is not None:
                text, letters = flag.kind.bare, tail
            elif tail:
                text, letters = tail, ""
            elif rest:
                text, letters = rest.pop(), ""
            else:
                raise UsageError(f"flag needs an argument: '{letter}' in -{letters}")
            store(flag, text, values)


def store(flag: Flag, text: str, values: dict[str, object]) -> None:
    """Put one use of a flag into `values`.

    Raises: UsageError, `invalid argument "x" for "--name" flag: ...`.
    """
    try:
        if flag.store is not None:
            flag.store(values, text)
        else:
            values[flag.name] = flag.kind.parse(text, values.get(flag.name))
    except ValueError as error:
        raise UsageError(f"invalid argument {quote(text)} for {quote(flag.dashed)} flag: {error}") from error


class Tree:
    """All commands. Modules of commands/ are imported when they are asked for."""

    def __init__(self, root: Command, global_flags: Sequence[Flag]) -> None:
        self.root = root
        self.global_flags = tuple(global_flags)

    def names(self) -> list[str]:
        """The names of all top-level commands, sorted."""
        return sorted(
            module.name.replace("_", "-")
            for module in pkgutil.iter_modules(cli.commands.__path__)
            if module.name[0] != "_"
        )

    def load(self, name: str) -> Command:
        """The top-level command `name`, which exists."""
        command = importlib.import_module(f"cli.commands.{name.replace('-', '_')}").COMMAND
        assert isinstance(command, Command)
        return command

    def children(self, command: Command) -> Iterator[Command]:
        """The commands below `command`."""
        if command is self.root:
            yield from (self.load(name) for name in self.names())
        else:
            yield from command.children

    def child(self, command: Command, word: str) -> Command | None:
        """The command below `command` that `word` names."""
        if command is self.root and word in self.names():
            return self.load(word)
        return next((child for child in self.children(command) if word == child.name or word in child.aliases), None)

    def flags(self, command: Command) -> Flags:
        """What `command` accepts."""
        return Flags((*command.own_flags(), HELP_FLAG, *self.global_flags))

    def find(self, arguments: Sequence[str]) -> tuple[tuple[Command, ...], list[str]]:
        """The command that `arguments` mean, and the arguments without its name.

        Raises: UsageError for an unknown first word.
        """
        path = [self.root]
        rest = list(arguments)
        while not path[-1].raw:
            flags = self.flags(path[-1])
            at = next(_words_at(rest, flags), None)
            child = None if at is None else self.child(path[-1], rest[at])
            if at is None or child is None:
                break
            del rest[at]
            path.append(child)
        if len(path) == 1:
            first = next(_words_at(rest, self.flags(self.root)), None)
            if first is not None:
                raise UsageError(
                    f"unknown command {quote(rest[first])} for {quote(STANDS_FOR)}" + self._suggest(rest[first])
                )
        return tuple(path), rest

    def call(self, arguments: Sequence[str]) -> Call:
        """Parse a whole command line.

        Raises: UsageError.
        """
        path, rest = self.find(arguments)
        if path[-1].raw:
            return Call(path=path, values={}, words=rest)
        flags = self.flags(path[-1])
        values, words = flags.parse(rest)
        return Call(path=path, values=values, words=words, flags=flags.by_name)

    def _suggest(self, word: str) -> str:
        """The `Did you mean this?` block, or nothing."""
        # Hubble's own commands first: whoever mistypes `observe` wants no service.
        for names in (HUBBLES, [name for name in self.names() if name not in HUBBLES]):
            near = [name for name in names if _near(word.lower(), name.lower()) and not self.load(name).hidden]
            if near:
                return "\n\nDid you mean this?\n" + "".join(f"\t{name}\n" for name in near)
        return ""


HUBBLES: Final = ("config", "list", "observe", "status", "version", "help", "completion")
"""Hubble's commands, in the order in which it suggests them."""


def _words_at(arguments: Sequence[str], flags: Flags) -> Iterator[int]:
    """Where the words stand that are neither flags nor values of flags."""
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if word == "--":
            return
        if word.startswith("-"):
            if "=" not in word and (word.startswith("--") or len(word) == 2) and flags.takes_next(word):
                # The last word is never swallowed: the flag then misses its value, which the parser reports.
                if len(arguments) - at <= 2:
                    return
                at += 1
        elif word:
            yield at
        at += 1


def _near(word: str, name: str) -> bool:
    """Whether `name` may have been meant: at most two edits away, or it begins with `word`."""
    return name.startswith(word) or _edits(word, name) <= 2


def _edits(left: str, right: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], previous if a == b else 1 + min(previous, row[j], row[j - 1])
    return row[-1]


def resolve(target: str) -> Callable[..., object]:
    """The function that `module:function` names."""
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert callable(function)
    return function  # type: ignore[no-any-return]
