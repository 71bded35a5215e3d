"""What a person types into the filter box: the flags of `flowscope observe`, with and, or, not and parentheses.

In:        text such as `--verdict DROPPED and not (--port 53 or --to-pod kube-system/)`; the leading dashes may be
           left out, and `=` may stand before a value: `verdict=DROPPED`.
Out:       Query: a predicate over rows, its conditions one by one, and the same as a command line.
Elsewhere: model/filter_words.py knows the flags; model/filters judges rows.

Flags side by side mean what they mean on a command line. `and`, `or` and `not` join such groups; `not` before a single
flag is the command line's `--not`. The tree is judged on columns, so any nesting costs one mask per group.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from model.filter_words import FILTER_WORDS, Filter, FilterSet, FilterWord
from model.filters import InvalidFilter, compile_filters
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2

Mask = npt.NDArray[np.bool_]

WORDS: Final[dict[str, FilterWord]] = {word.name: word for word in FILTER_WORDS}
SHORT: Final[dict[str, FilterWord]] = {word.short: word for word in FILTER_WORDS if word.short}

LONGEST: Final = 4_000
DEEPEST: Final = 40
"""Parentheses within parentheses: a person needs three, a stack has an end."""


class BadQuery(ValueError):
    """A text that is no filter; the message says which word, and what would do."""


class Node(Protocol):
    """A part of a query."""

    def mask(self, rows: Rows, tables: Tables) -> Mask: ...


class Group:
    """Flags side by side, as on a command line."""

    def __init__(self, flags: Sequence[tuple[str, str]]) -> None:
        """Raises: BadQuery."""
        self.flags = tuple(flags)
        filters = FilterSet()
        try:
            for name, value in flags:
                filters.use(name, value)
            self.allow = [_message(one) for one in filters.allow()]
            self.deny = [_message(one) for one in filters.deny()]
            self._predicate = compile_filters(self.allow, self.deny)
        except (InvalidFilter, ParseError, ValueError) as error:
            raise BadQuery(f"{error}") from error

    def mask(self, rows: Rows, tables: Tables) -> Mask:
        return self._predicate.mask(rows, tables, lost_passes=False)


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts of which all, or one, must hold."""

    parts: tuple[Node, ...]
    all_of: bool

    def mask(self, rows: Rows, tables: Tables) -> Mask:
        join = np.logical_and if self.all_of else np.logical_or
        found: Mask = join.reduce([part.mask(rows, tables) for part in self.parts])
        return found


@dataclass(frozen=True, slots=True)
class Not:
    part: Node

    def mask(self, rows: Rows, tables: Tables) -> Mask:
        return ~self.part.mask(rows, tables)


@dataclass(frozen=True, slots=True)
class Query:
    """A filter that was understood."""

    text: str
    root: Node | None = None
    """None: everything passes."""

    @property
    def passes_all(self) -> bool:
        return self.root is None

    def mask(self, rows: Rows, tables: Tables) -> Mask:
        """Which rows pass. Lost events always do: a filter cannot know what they were."""
        if self.root is None:
            return np.ones(len(rows), np.bool_)
        found: Mask = self.root.mask(rows, tables) | (rows["kind"] == Kind.LOST)
        return found

    def command(self) -> str | None:
        """The same for `flowscope observe`; None when no command line can say it."""
        if self.root is None:
            return "flowscope observe"
        if isinstance(self.root, Group):
            words = [word for name, value in self.root.flags for word in _typed(name, value)]
            return shlex.join(["flowscope", "observe", *words])
        lists = _lists(self.root)
        if lists is None:
            return None
        words = [
            word
            for flag, filters in zip(("--allowlist", "--denylist"), lists, strict=True)
            for word in _raw(flag, filters)
        ]
        return shlex.join(["flowscope", "observe", *words])

    def conditions(self) -> list[tuple[str, Node]]:
        """The conditions that must all hold, each with its words: the stages of the funnel."""
        if self.root is None:
            return []
        parts = self.root.parts if isinstance(self.root, Joined) and self.root.all_of else (self.root,)
        return [stage for part in parts for stage in _stages(part)]


def parse_query(text: str) -> Query:
    """Raises: BadQuery."""
    if len(text) > LONGEST:
        raise BadQuery(f"the filter is longer than {LONGEST} characters")
    tokens = _tokens(text)
    return Query(text.strip(), _Reader(tokens).whole() if tokens else None)


def describe(node: Node) -> str:
    """A part in words of the language."""
    if isinstance(node, Group):
        return shlex.join(word for name, value in node.flags for word in _typed(name, value))
    if isinstance(node, Not):
        return f"not {describe(node.part)}"
    assert isinstance(node, Joined)
    return "(" + (" and " if node.all_of else " or ").join(map(describe, node.parts)) + ")"


_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<mark>[()])|(?P<word>(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s()"']|(?<=[=\w])\((?:[^()]*)\))+))"""
)
JOINERS: Final = ("and", "or", "not")


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    quoted: bool


def _tokens(text: str) -> list[Token]:
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadQuery(f"a quotation mark is not closed: {text[at:].strip()[:40]}")
        raw = match["mark"] or match["word"]
        quoted = raw[:1] in "\"'"
        tokens.append(Token(raw if match["mark"] else _unquoted(raw), quoted))
        at = match.end()
    return tokens


def _unquoted(raw: str) -> str:
    return re.sub(
        r"""\"((?:[^"\\]|\\.)*)\"|'([^']*)'""",
        lambda m: re.sub(r"\\(.)", r"\1", m[1]) if m[1] is not None else m[2],
        raw,
    )


class _Reader:
    """Recursive descent over tokens: or < and < not < group."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._or()
        if (token := self._peek()) is not None:
            raise BadQuery(f"{token.text!r} is not expected here")
        return node

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _is(self, word: str) -> bool:
        token = self._peek()
        return token is not None and not token.quoted and token.text.lower() == word

    def _take(self, word: str) -> bool:
        found = self._is(word)
        self._at += found
        return found

    def _or(self) -> Node:
        return self._joined("or", self._and, all_of=False)

    def _and(self) -> Node:
        return self._joined("and", self._not, all_of=True)

    def _joined(self, word: str, part: Callable[[], Node], all_of: bool) -> Node:
        parts = [part()]
        while self._take(word) or (all_of and self._starts_part()):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(tuple(parts), all_of)

    def _starts_part(self) -> bool:
        """A parenthesis or `not` behind a group needs no `and`."""
        return self._is("(") or self._is("not")

    def _not(self) -> Node:
        if self._take("not"):
            return Not(self._deeper(self._not))
        if self._take("("):
            node = self._deeper(self._or)
            if not self._take(")"):
                raise BadQuery("a parenthesis is not closed")
            return node
        return self._group()

    def _deeper(self, read: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise BadQuery(f"more than {DEEPEST} levels of parentheses")
        node = read()
        self._depth -= 1
        return node

    def _group(self) -> Node:
        flags: list[tuple[str, str]] = []
        while (token := self._peek()) is not None and (token.quoted or token.text.lower() not in (*JOINERS, "(", ")")):
            flags.append(self._flag())
        if not flags:
            token = self._peek()
            raise BadQuery(f"a filter is missing before {token.text!r}" if token else "a filter is missing at the end")
        return Group(flags)

    def _flag(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at += 1
        name, equals, value = token.text.partition("=")
        word = _word(name)
        if not word.value:
            if equals and value != "true":
                raise BadQuery(f"{word.name} takes no value")
            return word.name, "true"
        if not equals:
            if self._at >= len(self._tokens):
                raise BadQuery(f"{word.name} needs a value ({word.value})")
            value = self._tokens[self._at].text
            self._at += 1
        return word.name, value


def _word(text: str) -> FilterWord:
    name = text.lstrip("-")
    found = SHORT.get(name) if text.startswith("-") and not text.startswith("--") else WORDS.get(name)
    if found is not None:
        return found
    near = [known for known in WORDS if name and (known.startswith(name) or name in known)]
    hint = f"; did you mean {', '.join(near[:3])}?" if near else "; filters are words such as pod, verdict, port"
    raise BadQuery(f"no filter is called {text[:40]!r}{hint}")


def _message(one: Filter) -> flow_pb2.FlowFilter:
    return ParseDict(one, flow_pb2.FlowFilter())


def _typed(name: str, value: str) -> list[str]:
    return [f"--{name}", value] if WORDS[name].value else [f"--{name}"]


def _raw(flag: str, filters: list[flow_pb2.FlowFilter]) -> list[str]:
    return [
        word
        for one in filters
        for word in (flag, json.dumps(MessageToDict(one, preserving_proto_field_name=True), separators=(",", ":")))
    ]


def _lists(node: Node) -> tuple[list[flow_pb2.FlowFilter], list[flow_pb2.FlowFilter]] | None:
    """Allow and deny list of a tree, where two lists can say it."""
    if isinstance(node, Group):
        return node.allow, node.deny
    if isinstance(node, Not):
        inner = _lists(node.part)
        return None if inner is None or inner[1] else ([], inner[0])
    assert isinstance(node, Joined)
    found = [_lists(part) for part in node.parts]
    known = [lists for lists in found if lists is not None]
    if len(known) < len(found):
        return None
    allows, denies = [allow for allow, _ in known], [one for _, deny in known for one in deny]
    if not node.all_of:
        return None if denies or not all(allows) else ([one for allow in allows for one in allow], [])
    given = [allow for allow in allows if allow]
    return None if len(given) > 1 else (given[0] if given else [], denies)


def _stages(part: Node) -> list[tuple[str, Node]]:
    if not isinstance(part, Group):
        return [(describe(part), part)]
    # Flags of one name belong together: a flow must match one of their values.
    names = list(dict.fromkeys(name for name, _ in part.flags if name != "not"))
    if len(names) <= 1 or "not" in dict(part.flags):
        return [(describe(part), part)]
    stages: list[tuple[str, Node]] = []
    for index, name in enumerate(names):
        # Flags about the two ends depend on each other, so each stage adds a flag to those before it.
        flags = [flag for flag in part.flags if flag[0] in names[: index + 1]]
        words = shlex.join(word for flag, value in part.flags if flag == name for word in _typed(flag, value))
        stages.append((words, Group(flags)))
    return stages
