"""DNS names and node names by pattern, and regular expressions.

In:        patterns in which `*` stands for any run of characters; RE2 expressions.
Out:       judges of one value, as scan.py asks for them.
Elsewhere: gotext.py words the refusals of regular expressions.

Every expression runs in RE2, whose time grows with the text and not with what a stranger wrote into a pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import re2

from model.filters.errors import InvalidFilter
from model.filters.gotext import quote_rune, regexp_error
from model.filters.scan import Judge
from model.tables import Node

LITERAL: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
ANY_RUN: Final = "[-.0-9a-z]*"
ANY_NAME: Final = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)"
DEFAULT_CLUSTER: Final = "default"

Search = Callable[[str], bool]


def regexp(pattern: str) -> Search:
    """A search for `pattern` anywhere in a text.

    Raises: ValueError with the text of Go's regexp.Compile.
    """
    options = re2.Options()
    options.log_errors = False  # a refusal is answered to whoever wrote the pattern, not printed here
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(regexp_error(reason.decode() if isinstance(reason, bytes) else str(reason))) from None
    return lambda text: compiled.search(text) is not None


def fqdn_judge(field: str, patterns: Sequence[str]) -> Judge:
    """Judges tuples of DNS names (None: no names): one of them matches one of the patterns as a whole.

    The pattern is lower-cased, the name is not.
    """
    matches = _whole(field, [_fqdn_expression(field, pattern) for pattern in patterns])
    return lambda names: names is not None and any(map(matches, names))


def node_name_judge(field: str, patterns: Sequence[str]) -> Judge:
    """Judges nodes (None: not known) by patterns of the form `[cluster/]node`."""
    matches = _whole(field, [_node_expression(field, pattern) for pattern in patterns])

    def judge(node: Node | None) -> bool:
        if node is None or not node.name:
            return False
        return matches(node.name if "/" in node.name else f"{DEFAULT_CLUSTER}/{node.name}")

    return judge


def _fqdn_expression(field: str, pattern: str) -> str:
    pattern = pattern.strip().removesuffix(".").lower()
    if not pattern:
        raise InvalidFilter(field, "empty pattern")
    if pattern.endswith("."):
        raise InvalidFilter(field, "multiple trailing dots in pattern")
    return "".join(_expression(field, char) for char in pattern)


def _expression(field: str, char: str) -> str:
    if char in LITERAL:
        return char
    if char == ".":
        return r"\."
    if char == "*":
        return ANY_RUN
    raise InvalidFilter(field, f"{quote_rune(char)}: invalid rune in pattern")


def _node_expression(field: str, pattern: str) -> str:
    if not pattern:
        raise InvalidFilter(field, "empty pattern")
    cluster, slash, node = pattern.rpartition("/")
    if "/" in cluster:
        raise InvalidFilter(field, "too many slashes in pattern")
    parts = (cluster if slash else "", node)
    return "/".join(_fqdn_expression(field, part) if part else ANY_NAME for part in parts)


def _whole(field: str, expressions: Sequence[str]) -> Search:
    try:
        # Cached, because message after message brings the same few names.
        return lru_cache(maxsize=1024)(regexp(rf"\A(?:{'|'.join(expressions)})\z"))
    except ValueError as error:  # more patterns than RE2 compiles into its memory limit
        raise InvalidFilter(field, str(error)) from None
