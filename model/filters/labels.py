"""Label selectors: source_label, destination_label, node_labels.

In:        selectors such as `k8s:app in (web, api),!reserved:world`; label sets of endpoints and nodes.
Out:       judges of one label set, as scan.py asks for them.
Elsewhere: which label set a flow has, facts.py knows.
Source:    Kubernetes label selectors (grammar, and the words of every refusal), Cilium's label sources.

A selector's key is `source:key`; without a source it finds the key in any. Kubernetes knows no such thing, so the key
travels through its grammar as `source.key`, and it is this form that error texts show.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from model.filters.errors import InvalidFilter
from model.filters.scan import Judge
from model.text.quote import quote

ANY: Final = "any"
UNSPECIFIED: Final = "unspec"
RESERVED: Final = "reserved"
CIDR: Final = "cidr"

SYMBOLS: Final = "=!(),><"
BLANKS: Final = " \t\r\n"
OPERATORS: Final = ("in", "notin", "=", "==", "!=", "gt", "lt")
INT64: Final = range(-(1 << 63), 1 << 63)

NAME: Final = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
NAME_RULE: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME}')"
)
SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
VALUE_RULE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character "
    f"(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({NAME})?')"
)
NAME_MAX: Final = 63
SUBDOMAIN_MAX: Final = 253

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Label:
    """One label of an endpoint or node."""

    source: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a selector."""

    source: str
    key: str
    operator: str
    """One of OPERATORS (`=` also for `==`), `exists` or `!`."""
    values: frozenset[str]
    network: Network | None
    """Of a key with source `cidr`: it also finds labels of networks inside this one."""

    def holds(self, labels: Sequence[Label]) -> bool:
        """Shape: labels in order of their keys; the first that has the key counts."""
        found = next((label for label in labels if self._is_key_of(label)), None)
        match self.operator:
            case "exists":
                return found is not None
            case "!":
                return found is None
            case "notin" | "!=":
                return found is None or found.value not in self.values
            case "gt" | "lt":
                return found is not None and self._compares(found.value)
        return found is not None and found.value in self.values

    def _is_key_of(self, label: Label) -> bool:
        if self.source not in (ANY, label.source):
            return False
        return label.key == self.key or (self.network is not None and contains(self.network, network_of(label)))

    def _compares(self, text: str) -> bool:
        value, limit = go_int(text), go_int(next(iter(self.values)))
        if value is None or limit is None:
            return False
        return value > limit if self.operator == "gt" else value < limit


def labels_judge(field: str, selectors: Sequence[str], what: str) -> Judge:
    """Judges tuples of label texts: one of the selectors holds.

    Raises: InvalidFilter; the message starts with `invalid <what> label filter: `.
    """
    try:
        parsed = [parse_selector(selector) for selector in selectors]
    except ValueError as error:
        raise InvalidFilter(field, f"invalid {what} label filter: {error}") from None

    def judge(texts: tuple[str, ...]) -> bool:
        labels = label_set(texts)
        return any(all(requirement.holds(labels) for requirement in selector) for selector in parsed)

    return judge


@lru_cache(maxsize=8192)
def label_set(texts: tuple[str, ...]) -> tuple[Label, ...]:
    """Labels in order of their keys. Cached: every selector looks at the same few label sets."""
    return tuple(sorted(map(parse_label, texts), key=lambda label: label.key))


def parse_label(text: str) -> Label:
    """A label as flows carry it: `source:key=value`; source and value may be missing."""
    if text.startswith("$"):
        source, rest = RESERVED, text[1:]
    elif ":" in text:
        source, _, rest = text.partition(":")
    elif text.startswith("reserved."):
        source, rest = RESERVED, text.removeprefix("reserved.")
    else:
        source, rest = "", text
    key, equals, value = rest.partition("=")
    if equals and not key and source == RESERVED:
        key, value = value, ""
    return Label(source or UNSPECIFIED, key, value)


def contains(outer: Network, inner: Network | None) -> bool:
    """Whether a network lies in another one of the same IP version."""
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


def network_of(label: Label) -> Network | None:
    """The network of a `cidr:` label, in which `-` stands for the `:` of IPv6."""
    return parse_network(label.key) if label.source == CIDR else None


def parse_network(key: str) -> Network | None:
    """A network as it stands in keys of `cidr:` labels; None when it is none."""
    try:
        return ipaddress.ip_network(key.replace("-", ":"), strict=False) if "/" in key else None
    except ValueError:
        return None


def go_int(text: str) -> int | None:
    """An int64 in decimal as strconv.ParseInt reads it; None for anything else."""
    if len(text) > 20 or not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        return None
    number = int(text)
    return number if number in INT64 else None


# The grammar. A selector is read twice, as by Hubble: once to give every key a source, once by Kubernetes' rules.


def parse_selector(selector: str) -> list[Requirement]:
    """The requirements of a selector, all of which must hold; none in an empty one.

    Raises: ValueError with Kubernetes' words.
    """
    return _Parser(with_sources(selector)).selector()


def with_sources(selector: str) -> str:
    """The selector with each key as `source.key`; keys without a source get `any`."""
    out: list[str] = []
    position = 0
    while position < len(selector):
        start = position
        while position < len(selector) and (selector[position].isspace() or selector[position] == "!"):
            position += 1
        out.append(selector[start:position])
        start = position
        while position < len(selector) and not (selector[position].isspace() or selector[position] in "=!,"):
            position += 1
        key = selector[start:position]
        out.append((key if ":" in key else f"{ANY}:{key}").replace(":", ".", 1))
        start = position
        position = _end_of_requirement(selector, position)
        out.append(selector[start:position])
    return "".join(out)


def _end_of_requirement(selector: str, position: int) -> int:
    """Position after the comma that ends a requirement; commas in parentheses do not."""
    depth = 0
    while position < len(selector):
        char = selector[position]
        position += 1
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            break
    return position


END: Final = "end"
WORD: Final = "word"
KEYWORDS: Final = ("in", "notin")
SYMBOL_TOKENS: Final = (")", ",", "!", "==", "=", ">", "<", "!=", "(")

Token = tuple[str, str]
"""Kind and text; the kind of a symbol or keyword is the text itself."""


class _Parser:
    """Kubernetes' selector grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._position = 0

    def _peek(self) -> Token:
        """The next token where `in` and `notin` are words like others."""
        kind, text = self._tokens[min(self._position, len(self._tokens) - 1)]
        return (WORD, text) if kind in KEYWORDS else (kind, text)

    def _next(self) -> Token:
        token = self._peek()
        self._position += 1
        return token

    def selector(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while True:
            kind, text = self._peek()
            if kind == END:
                return requirements
            if kind not in (WORD, "!"):
                raise ValueError(f"found '{text}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self._requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            kind, text = self._next()
            if kind == END:
                return requirements
            if kind != ",":
                raise ValueError(f"found '{text}', expected: ',' or 'end of string'")
            kind, text = self._peek()
            if kind not in (WORD, "!"):
                raise ValueError(f"found '{text}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        negated = self._peek()[0] == "!"
        if negated:
            self._next()
        kind, key = self._next()
        if kind != WORD:
            raise ValueError(f"found '{key}', expected: identifier")
        if problems := key_problems(key):
            raise ValueError(_invalid("<nil>", key, problems))
        if self._peek()[0] in (END, ","):
            return _requirement(key, "!" if negated else "exists", set())
        if negated:
            return _requirement(key, "!", set())
        operator = self._operator()
        values = self._values() if operator in KEYWORDS else self._exact_value()
        return _requirement(key, operator, values)

    def _operator(self) -> str:
        kind, text = self._tokens[min(self._position, len(self._tokens) - 1)]
        self._position += 1
        operator = {">": "gt", "<": "lt"}.get(kind, kind)
        if operator not in OPERATORS:
            raise ValueError(f"found '{text}', expected: {', '.join(OPERATORS)}")
        return operator

    def _exact_value(self) -> set[str]:
        if self._peek()[0] in (END, ","):
            return {""}
        kind, text = self._next()
        if kind != WORD:
            raise ValueError(f"found '{text}', expected: identifier")
        return {text}

    def _values(self) -> set[str]:
        kind, text = self._next()
        if kind != "(":
            raise ValueError(f"found '{text}' expected: '('")
        kind, text = self._peek()
        if kind == ")":
            self._next()
            return {""}
        if kind not in (WORD, ","):
            raise ValueError(f"found '{text}', expected: ',', ')' or identifier")
        values = self._identifiers()
        if self._next()[0] != ")":
            raise ValueError(f"found '{text}', expected: ')'")
        return values

    def _identifiers(self) -> set[str]:
        values: set[str] = set()
        while True:
            kind, text = self._next()
            if kind == WORD:
                values.add(text)
                kind, text = self._peek()
                if kind == ")":
                    return values
                if kind != ",":
                    raise ValueError(f"found '{text}', expected: ',' or ')'")
            elif kind == ",":
                # A comma with nothing beside it stands for an empty value.
                if not values:
                    values.add("")
                kind, _ = self._peek()
                if kind == ")":
                    values.add("")
                    return values
                if kind == ",":
                    self._next()
                    values.add("")
            else:
                raise ValueError(f"found '{text}', expected: ',', or identifier")


def _tokens(text: str) -> Iterator[Token]:
    text = text.partition("\0")[0]
    position = 0
    while True:
        while position < len(text) and text[position] in BLANKS:
            position += 1
        if position == len(text):
            yield END, ""
            return
        start = position
        if text[position] in SYMBOLS:
            # The longest symbol that starts here.
            symbol = max((s for s in SYMBOL_TOKENS if text.startswith(s, position)), key=len)
            position += len(symbol)
            yield symbol, symbol
            continue
        while position < len(text) and text[position] not in SYMBOLS + BLANKS:
            position += 1
        word = text[start:position]
        yield (word if word in KEYWORDS else WORD), word


def _requirement(key: str, operator: str, values: set[str]) -> Requirement:
    problems: list[str] = []
    for position, value in enumerate(sorted(values)):
        if operator in ("gt", "lt") and go_int(value) is None:
            rule = "for 'Gt', 'Lt' operators, the value must be an integer"
            problems.append(_invalid(f"values[{position}]", value, [rule]))
    for position, value in enumerate(sorted(values)):
        if value_rules := value_problems(value):
            problems.append(_invalid(f"values[{position}][{key}]", value, value_rules))
    if problems:
        raise ValueError(problems[0] if len(problems) == 1 else f"[{', '.join(dict.fromkeys(problems))}]")
    source, dot, rest = key.partition(".")
    source, rest = (source, rest) if dot else (ANY, key)
    operator = "=" if operator == "==" else operator
    return Requirement(source, rest, operator, frozenset(values), parse_network(rest) if source == CIDR else None)


def _invalid(path: str, value: str, problems: Sequence[str]) -> str:
    return f"{path}: Invalid value: {quote(value)}: {'; '.join(problems)}"


def key_problems(key: str) -> list[str]:
    """What is wrong with a key by Kubernetes' naming rules, in its words."""
    parts = key.split("/")
    if len(parts) > 2:
        prefix_rule = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a qualified name {NAME_RULE} {prefix_rule}"]
    problems: list[str] = []
    name = parts[-1]
    if len(parts) == 2:
        if not parts[0]:
            problems.append("prefix part must be non-empty")
        else:
            problems += [f"prefix part {problem}" for problem in _subdomain_problems(parts[0])]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name.encode()) > NAME_MAX:
        problems.append(f"name part must be no more than {NAME_MAX} bytes")
    if not re.fullmatch(NAME, name):
        problems.append(f"name part {NAME_RULE}")
    return problems


def _subdomain_problems(text: str) -> list[str]:
    problems = []
    if len(text.encode()) > SUBDOMAIN_MAX:
        problems.append(f"must be no more than {SUBDOMAIN_MAX} bytes")
    if not re.fullmatch(SUBDOMAIN, text):
        problems.append(SUBDOMAIN_RULE)
    return problems


def value_problems(value: str) -> list[str]:
    """What is wrong with a value by Kubernetes' naming rules, in its words."""
    problems = []
    if len(value.encode()) > NAME_MAX:
        problems.append(f"must be no more than {NAME_MAX} bytes")
    if not re.fullmatch(f"({NAME})?", value):
        problems.append(VALUE_RULE)
    return problems
