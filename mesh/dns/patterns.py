"""Names and the patterns that rules have for them.

In:        dns rules and toFQDNs selectors: an exact name, or a pattern with `*`.
Out:       whether a name is meant.
Elsewhere: mesh/policy/documents/layer7.py checks how rules are written. Source: spec/policy.md section 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

ANYTHING: Final = "*"
"""The one pattern that also means the root, and names with characters that no other pattern allows."""
MAX_NAME: Final = 255
"""Characters of a name with its final dot."""
_STAR: Final = "[-a-z0-9_]*"
_LABELS: Final = r"(?:[-a-z0-9_]+\.)+"


def normal(name: str) -> str:
    """The form in which names are compared: lower case, with the final dot."""
    # Not str.lower(): it would also change letters outside ASCII, which DNS compares byte by byte.
    lowered = name.translate(_LOWER)
    return lowered if lowered.endswith(".") and not lowered.endswith("\\.") else f"{lowered}."


_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@lru_cache(maxsize=4096)
def expression(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression over normal names.

    `*` stands for any run of allowed characters inside a label; `**.` in front for one or more whole labels.
    """
    text = normal(pattern)
    front = ""
    while text.startswith("**."):
        front, text = front + _LABELS, text[3:]
    # More than two stars in a row mean no more than one.
    body = _STAR.join(re.escape(part) for part in re.split(r"\*+", text))
    return re.compile(front + body)


@dataclass(frozen=True, slots=True)
class NameRules:
    """Some names and some patterns, as fast to ask as there are patterns."""

    anything: bool = False
    names: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()

    @classmethod
    def of(cls, rules: Iterable[str]) -> NameRules:
        """From what rules say: names, or patterns, which are what has a star."""
        texts = set(rules)
        patterns = sorted(text for text in texts if "*" in text and text != ANYTHING)
        return cls(ANYTHING in texts, frozenset(normal(text) for text in texts if "*" not in text), tuple(patterns))

    def match(self, name: str) -> bool:
        """Whether a name in its normal form is among them."""
        if self.anything or name in self.names:
            return True
        return len(name) <= MAX_NAME and any(expression(one).fullmatch(name) for one in self.patterns)


def selectors_of(names: Iterable[str], selectors: Iterable[str]) -> tuple[str, ...]:
    """Which selectors mean any of some normal names: sorted, without repetition."""
    known = list(names)
    return tuple(sorted({one for one in selectors if any(NameRules.of((one,)).match(name) for name in known)}))
