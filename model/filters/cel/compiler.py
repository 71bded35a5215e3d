"""From the text of an expression to a typed Python function of a flow.

In:        text.
Out:       Expression: the function, and which parts of the flow it looks at.
Elsewhere: functions.py defines what can be called; term.py decides for which flows it runs.

Types are checked completely before anything runs, so that a wrong filter is refused with its position instead of
silently matching nothing. Positions and texts are those of cel-go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from celpy.celparser import CELParseError, CELParser
from celpy.evaluation import celbytes, celstr
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from lark import Token, Tree

from model.filters.cel.functions import INTS, UINTS, CelRuntimeError, Function, is_function, resolve
from model.filters.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    FULL_NAMES,
    INT,
    NULL,
    STRING,
    TYPE,
    UINT,
    WRAPPED,
    Type,
    field_type,
    fits,
    joined,
    list_of,
    map_of,
    message_type,
    unwrapped,
)
from proto.flow import flow_pb2

FLOW: Final[Any] = flow_pb2.Flow.DESCRIPTOR
VARIABLE: Final = "_flow"
CONTAINER: Final = "flow"
SIZE_MAX: Final = 4096
DEPTH_MAX: Final = 250
STEPS_MAX: Final = 20_000
"""Iterations of macros in one evaluation."""

OPERATORS: Final = {
    "relation_lt": ("_<_", "<"),
    "relation_le": ("_<=_", "<="),
    "relation_gt": ("_>_", ">"),
    "relation_ge": ("_>=_", ">="),
    "relation_eq": ("_==_", "=="),
    "relation_ne": ("_!=_", "!="),
    "relation_in": ("@in", "in"),
    "addition_add": ("_+_", "+"),
    "addition_sub": ("_-_", "-"),
    "multiplication_mul": ("_*_", "*"),
    "multiplication_div": ("_/_", "/"),
    "multiplication_mod": ("_%_", "%"),
    "unary_not": ("!_", "!"),
    "unary_neg": ("-_", "-"),
}
TAKING_NULL: Final = frozenset({"_==_", "_!=_", "@in"})
MACROS: Final = ("all", "exists", "exists_one", "filter", "map")
OPERANDS: Final = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)

Frame = dict[str, Any]
"""Values of the variables while an expression runs."""
Run = Callable[[Frame], Any]
Path = tuple[str, ...]


class CelError(Exception):
    """An expression that cannot be compiled. Its text is that of cel-go."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression."""

    result: Type
    run: Run
    reads: frozenset[Path]
    """Fields of the flow that the result depends on, as paths of names; () is all of it. A path ends in `?` where
    only presence counts."""

    def evaluate(self, flow: flow_pb2.Flow) -> Any:
        """The value for one flow.

        Raises: CelRuntimeError when there is none.
        """
        try:
            return self.run({VARIABLE: flow, STEPS: STEPS_MAX})
        except FAILURES as error:
            raise error if isinstance(error, CelRuntimeError) else CelRuntimeError("no such overload") from error


FAILURES: Final = (
    CelRuntimeError,
    # What is left to go wrong where types are not known before.
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
STEPS: Final = " steps"
"""Where a frame counts down; no variable has such a name."""


class Node(NamedTuple):
    """A compiled part of an expression."""

    type: Type
    run: Run
    path: Path | None = None
    """Where in the flow it is, when it is a field of it or the flow itself."""


class Mistake(NamedTuple):
    """What is wrong, and where in the text."""

    position: int
    message: str


def compile_expression(text: str) -> Expression:
    """Compile one expression.

    Raises: CelError with all mistakes that were found.
    """
    if len(text) > SIZE_MAX:
        size = f"expression code point size exceeds limit: size: {len(text)}, limit {SIZE_MAX}"
        raise CelError(f"ERROR: <input>:-1:0: {size}")
    try:
        tree: Tree[Token] = CELParser().parse(text)
    except CELParseError as error:
        raise CelError(_syntax_error(text, error)) from None
    compiler = _Compiler(text)
    try:
        node = compiler.compile(tree)
    except RecursionError:
        raise CelError(f"ERROR: <input>:-1:0: expression recursion limit exceeded: {DEPTH_MAX}") from None
    if compiler.mistakes:
        raise CelError("\n".join(_shown(text, mistake) for mistake in sorted(set(compiler.mistakes))))
    return Expression(node.type, node.run, frozenset(compiler.reads))


def bool_expression(text: str) -> Expression:
    """Compile an expression whose result is exactly bool.

    Raises: CelError.
    """
    expression = compile_expression(text)
    if expression.result != BOOL:
        name = FULL_NAMES.get(expression.result.name, str(expression.result))
        raise CelError(f'got "{name}", wanted "bool" result type')
    return expression


def _shown(text: str, mistake: Mistake) -> str:
    """A mistake with its line and a mark below it."""
    before = text[: mistake.position]
    line, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
    source = (text.split("\n") or [""])[line].replace("\t", " ")
    return f"ERROR: <input>:{line + 1}:{column + 1}: {mistake.message}\n | {source}\n | {'.' * column}^"


def _syntax_error(text: str, error: CELParseError) -> str:
    cause = error.__context__  # the parser's own exception, which says more
    token: Token | None = getattr(cause, "token", None)
    expected: set[str] = getattr(cause, "expected", set())
    if token is None:  # a character that starts no token
        position = min(getattr(cause, "pos_in_stream", 0) or 0, len(text))
        return _shown(text, Mistake(position, f"Syntax error: token recognition error at: '{text[position:][:1]}'"))
    at_end = token.type == "$END"
    position = len(text) if at_end else token.start_pos or 0
    found = "<EOF>" if at_end else str(token)
    if expected == {"IDENT"}:
        message = f"no viable alternative at input '.{'' if at_end else found}'"
    elif "IDENT" in expected:
        message = f"mismatched input '{found}' expecting {OPERANDS}"
    else:
        last = text[position + len(found) :].isspace() or position + len(found) == len(text)
        message = f"{'extraneous' if last and not at_end else 'mismatched'} input '{found}' expecting <EOF>"
    return _shown(text, Mistake(position, f"Syntax error: {message}"))


def _enums(descriptor: Descriptor) -> Iterator[EnumDescriptor]:
    yield from descriptor.enum_types
    for nested in descriptor.nested_types:
        yield from _enums(nested)


def _constants() -> dict[str, int]:
    """Enum values of the flow API by their full names."""
    file = flow_pb2.DESCRIPTOR
    enums = [*file.enum_types_by_name.values()]
    for message in file.message_types_by_name.values():
        enums.extend(_enums(message))
    return {f"{enum.full_name}.{value.name}": value.number for enum in enums for value in enum.values}


CONSTANTS: Final = _constants()
TYPE_NAMES: Final = ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type")


class _Compiler:
    """Walks the parser's tree once, from the leaves up."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._scope: list[dict[str, Type]] = [{VARIABLE: message_type(FLOW)}]
        self.mistakes: list[Mistake] = []
        self.reads: set[Path] = set()

    def compile(self, tree: Tree[Token], *, selected: bool = False) -> Node:
        """One expression. With `selected` a field of it is read next, so it is not yet known what it looks at."""
        tree = _innermost(tree)
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise RecursionError
        node = self._compile(tree)
        self._depth -= 1
        if node.path is not None and not selected:
            self.reads.add(node.path)
        return node

    def _compile(self, tree: Tree[Token]) -> Node:
        kind = tree.data
        if kind in ("relation", "addition", "multiplication"):
            operation, right = _trees(tree)
            name, sign = OPERATORS[operation.data]
            return self._call(name, [_trees(operation)[0], right], operation.meta.end_pos - len(sign))
        if kind == "unary":
            operation, operand = _trees(tree)
            name, _ = OPERATORS[operation.data]
            return self._call(name, [operand], operation.meta.start_pos)
        compiler: Callable[[Tree[Token]], Node] = getattr(self, f"_{kind}")
        return compiler(tree)

    def _wrong(self, position: int, message: str) -> Node:
        self.mistakes.append(Mistake(position, message))
        return Node(DYN, lambda frame: None)

    def _call(self, name: str, operands: Sequence[Tree[Token]], position: int) -> Node:
        return self._apply(name, [self.compile(operand) for operand in operands], position)

    def _apply(self, name: str, nodes: Sequence[Node], position: int) -> Node:
        found = resolve(name, [node.type for node in nodes])
        if found is None:
            return self._no_overload(name, nodes, position)
        result, call = found
        runs = [node.run if name in TAKING_NULL else _not_null(node) for node in nodes]
        return Node(result, _calling(call, runs))

    def _no_overload(self, name: str, nodes: Sequence[Node], position: int, *, method: bool = False) -> Node:
        kinds = [str(node.type) for node in nodes]
        shown = f"{kinds[0]}.({', '.join(kinds[1:])})" if method else f"({', '.join(kinds)})"
        return self._wrong(position, f"found no matching overload for '{name}' applied to '{shown}'")

    # Logic. A side that has no value is no matter when the other side decides alone.

    def _conditionalor(self, tree: Tree[Token]) -> Node:
        return self._logic(tree, "||", decides=True)

    def _conditionaland(self, tree: Tree[Token]) -> Node:
        return self._logic(tree, "&&", decides=False)

    def _logic(self, tree: Tree[Token], sign: str, *, decides: bool) -> Node:
        operands: list[Tree[Token]] = []
        kind = tree.data
        while tree.data == kind and len(tree.children) == 2:
            left, right = _trees(tree)
            operands.append(right)
            tree = left
        operands = [tree, *reversed(operands)]
        nodes = [self.compile(operand) for operand in operands]
        for number, node in enumerate(nodes):
            if not fits(node.type, BOOL):
                second = max(number, 1)
                pair = [nodes[0], nodes[1]] if number < 2 else [nodes[0]._replace(type=BOOL), node]
                position = self._text.rfind(sign, 0, operands[second].meta.start_pos)
                return self._no_overload(f"_{sign}_", pair, position)
        runs = [_truth(node) for node in nodes]

        def run(frame: Frame) -> bool:
            failure: Exception | None = None
            for one in runs:
                try:
                    if one(frame) == decides:
                        return decides
                except FAILURES as error:
                    failure = failure or error
            if failure is not None:
                raise failure
            return not decides

        return Node(BOOL, run)

    def _expr(self, tree: Tree[Token]) -> Node:
        condition, yes, no = nodes = [self.compile(child) for child in _trees(tree)]
        if not fits(condition.type, BOOL) or (yes.type != no.type and DYN not in (yes.type, no.type)):
            return self._no_overload("_?_:_", nodes, self._text.find("?", _trees(tree)[0].meta.end_pos))
        truth, then, otherwise = _truth(condition), yes.run, no.run
        return Node(joined([yes.type, no.type]), lambda frame: then(frame) if truth(frame) else otherwise(frame))

    # Names and fields.

    def _ident(self, tree: Tree[Token]) -> Node:
        token = _token(tree)
        return self._name(str(token), token.start_pos or 0)

    def _dot_ident(self, tree: Tree[Token]) -> Node:
        token = _token(tree)
        return self._wrong(token.start_pos or 0, f"undeclared reference to '.{token}' (in container '{CONTAINER}')")

    def _name(self, name: str, position: int) -> Node:
        for variables in reversed(self._scope):
            if name in variables:
                path = () if name == VARIABLE and variables is self._scope[0] else None
                return Node(variables[name], lambda frame: frame[name], path)
        if name in TYPE_NAMES:
            return Node(TYPE, lambda frame: name)
        return self._wrong(position, f"undeclared reference to '{name}' (in container '{CONTAINER}')")

    def _member_dot(self, tree: Tree[Token]) -> Node:
        if (constant := self._constant(tree)) is not None:
            return Node(INT, lambda frame: constant)
        operand, field = _trees(tree)[0], str(tree.children[-1])
        node = self.compile(operand, selected=True)
        return self._select(node, field, self._before(tree.children[-1], "."))

    def _constant(self, tree: Tree[Token]) -> int | None:
        """The value of `Verdict.DROPPED` and the like."""
        name = _dotted(tree)
        if name is None:
            return None
        if name.startswith("."):
            return CONSTANTS.get(name[1:])
        if any(name.split(".")[0] in variables for variables in self._scope):
            return None
        return CONSTANTS.get(f"{CONTAINER}.{name}", CONSTANTS.get(name))

    def _select(self, node: Node, field: str, position: int, *, presence: bool = False) -> Node:
        kind, run = node.type, node.run
        if kind.descriptor is not None:
            described = kind.descriptor.fields_by_name.get(field)
            if described is None:
                return self._wrong(position, f"undefined field '{field}'")
            path = None if node.path is None else (*node.path, field)
            if presence:
                return Node(BOOL, _presence(run, described), None if path is None else (*path, "?"))
            return Node(field_type(described), _reading(run, described), path)
        if kind.name == "map" or kind == DYN:
            if node.path is not None:
                self.reads.add(node.path)
            found = (lambda frame: field in run(frame)) if presence else (lambda frame: run(frame)[field])
            return Node(BOOL if presence else (kind.args[1] if kind.args else DYN), found)
        return self._wrong(position, f"type '{kind}' does not support field selection")

    def _member_index(self, tree: Tree[Token]) -> Node:
        operand, index = _trees(tree)
        return self._call("_[_]", [operand, index], self._text.find("[", operand.meta.end_pos))

    def _member_object(self, tree: Tree[Token]) -> Node:
        position = self._text.find("{", _trees(tree)[0].meta.end_pos)
        return self._wrong(position, "messages cannot be made in a filter")

    # Calls.

    def _ident_arg(self, tree: Tree[Token]) -> Node:
        token, arguments = _token(tree), _arguments(tree)
        name, position = str(token), self._text.find("(", token.end_pos or 0)
        if name == "has":
            return self._has(arguments, position)
        if not is_function(name) and name != "type":
            return self._wrong(position, f"undeclared reference to '{name}' (in container '{CONTAINER}')")
        if name == "type" and len(arguments) == 1:
            return self._type_of(self.compile(arguments[0]))
        return self._call(name, arguments, position)

    def _dot_ident_arg(self, tree: Tree[Token]) -> Node:
        return self._ident_arg(tree)

    def _type_of(self, node: Node) -> Node:
        name, run = FULL_NAMES.get(node.type.name, node.type.name), node.run
        if node.type == DYN or node.type.name == "wrapper":
            return Node(TYPE, lambda frame: PYTHON_TYPES.get(type(run(frame)), "dyn"))
        return Node(TYPE, lambda frame: name)

    def _has(self, arguments: Sequence[Tree[Token]], position: int) -> Node:
        tree = _innermost(arguments[0]) if len(arguments) == 1 else None
        if tree is None or tree.data != "member_dot":
            return self._wrong(position, "invalid argument to has() macro")
        node = self.compile(_trees(tree)[0], selected=True)
        return self._noted(
            self._select(node, str(tree.children[-1]), self._before(tree.children[-1], "."), presence=True)
        )

    def _noted(self, node: Node) -> Node:
        """The same, with what it reads recorded here and not by whoever uses it."""
        if node.path is not None:
            self.reads.add(node.path)
        return Node(node.type, node.run)

    def _member_dot_arg(self, tree: Tree[Token]) -> Node:
        operand, token, arguments = _trees(tree)[0], tree.children[1], _arguments(tree)
        name = str(token)
        assert isinstance(token, Token)
        position = self._text.find("(", token.end_pos or 0)
        if name in MACROS and len(arguments) in ((2, 3) if name == "map" else (2,)):
            return self._macro(name, operand, arguments, position)
        nodes = [self.compile(part) for part in (operand, *arguments)]
        if not is_function(name) or name.startswith("_"):
            return self._wrong(position, f"undeclared reference to '{name}' (in container '{CONTAINER}')")
        found = resolve(name, [node.type for node in nodes]) if name in METHODS else None
        if found is None:
            return self._no_overload(name, nodes, position, method=True)
        return Node(found[0], _calling(found[1], [_not_null(node) for node in nodes]))

    # Macros over lists, and over the keys of maps.

    def _macro(self, name: str, operand: Tree[Token], arguments: Sequence[Tree[Token]], position: int) -> Node:
        values = self.compile(operand)
        variable = _innermost(arguments[0])
        if variable.data != "ident":
            return self._wrong(variable.meta.start_pos, "argument must be a simple name")
        if unwrapped(values.type).name not in ("list", "map") and values.type != DYN:
            text = (
                f"expression of type '{values.type}' cannot be range of a comprehension (must be list, map, or dynamic)"
            )
            return self._wrong(_innermost(operand).meta.start_pos, text)
        bound = str(_token(variable))
        self._scope.append({bound: values.type.args[0] if values.type.args else DYN})
        bodies = [self.compile(argument) for argument in arguments[1:]]
        self._scope.pop()
        tests = bodies[:-1] if name == "map" else bodies
        if not all(fits(body.type, BOOL) for body in tests):
            pair = [Node(BOOL, bodies[0].run), bodies[0]]
            return self._no_overload({"exists": "_||_", "all": "_&&_"}.get(name, "_?_:_"), pair, position)
        run = _comprehension(name, values.run, bound, [_truth(body) if body in tests else body.run for body in bodies])
        result = {"map": list_of(bodies[-1].type), "filter": list_of(_element(values.type))}.get(name, BOOL)
        return Node(result, run)

    # Literals.

    def _literal(self, tree: Tree[Token]) -> Node:
        token = _token(tree)
        position = token.start_pos or 0
        match token.type:
            case "INT_LIT":
                number = int(token, 0) if "x" in token else int(token)
                return _constant_node(INT, number) if number in INTS else self._wrong(position, "invalid int literal")
            case "UINT_LIT":
                number = int(token[:-1], 0) if "x" in token else int(token[:-1])
                return (
                    _constant_node(UINT, number) if number in UINTS else self._wrong(position, "invalid uint literal")
                )
            case "FLOAT_LIT":
                return _constant_node(DOUBLE, float(token))
            case "BOOL_LIT":
                return _constant_node(BOOL, token == "true")
            case "NULL_LIT":
                return _constant_node(NULL, None)
            case "BYTES_LIT":
                return _constant_node(BYTES, bytes(celbytes(token)))
        return _constant_node(STRING, str(celstr(token)))

    def _list_lit(self, tree: Tree[Token]) -> Node:
        nodes = [self.compile(child) for child in _arguments(tree)]
        runs = [node.run for node in nodes]
        return Node(list_of(joined([node.type for node in nodes])), lambda frame: [run(frame) for run in runs])

    def _map_lit(self, tree: Tree[Token]) -> Node:
        nodes = [self.compile(child) for child in _arguments(tree)]
        keys, values = nodes[::2], nodes[1::2]
        pairs = [(key.run, value.run) for key, value in zip(keys, values, strict=True)]
        kind = map_of(joined([key.type for key in keys]), joined([value.type for value in values]))
        return Node(kind, lambda frame: {key(frame): value(frame) for key, value in pairs})

    def _before(self, token: Any, sign: str) -> int:
        """Position of the sign in front of a token."""
        return max(self._text.rfind(sign, 0, token.start_pos), 0)


METHODS: Final = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "getFullYear", "getMonth", "getDate", "getDayOfMonth"}
    | {"getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
PYTHON_TYPES: Final = {
    bool: "bool",
    int: "int",
    float: "double",
    str: "string",
    bytes: "bytes",
    type(None): "null_type",
}


def _innermost(tree: Tree[Token]) -> Tree[Token]:
    """The first part below `tree` that is more than a pair of brackets around another one."""
    while len(tree.children) == 1 and tree.data in PASSING and isinstance(tree.children[0], Tree):
        tree = tree.children[0]
    return tree


PASSING: Final = frozenset(
    {"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member", "primary"}
    | {"paren_expr"}
)


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if isinstance(child, Tree)]


def _token(tree: Tree[Token]) -> Token:
    token = tree.children[0]
    assert isinstance(token, Token)
    return token


def _arguments(tree: Tree[Token]) -> list[Tree[Token]]:
    last = tree.children[-1] if tree.children else None
    return _trees(last) if isinstance(last, Tree) and last.data in ("exprlist", "mapinits") else []


def _dotted(tree: Tree[Token]) -> str | None:
    """`a.b.c` as text when the tree is nothing but names and dots."""
    names: list[str] = []
    while tree.data == "member_dot":
        names.append(str(tree.children[-1]))
        tree = _innermost(_trees(tree)[0])
    if tree.data not in ("ident", "dot_ident"):
        return None
    first = str(_token(tree))
    return ".".join([f".{first}" if tree.data == "dot_ident" else first, *reversed(names)])


def _element(kind: Type) -> Type:
    return kind.args[0] if kind.args else DYN


def _constant_node(kind: Type, value: Any) -> Node:
    return Node(kind, lambda frame: value)


def _calling(call: Function, runs: Sequence[Run]) -> Run:
    """A call with its arguments evaluated; the common numbers of them without a loop."""
    if len(runs) == 1:
        (only,) = runs
        return lambda frame: call(only(frame))
    if len(runs) == 2:
        left, right = runs
        return lambda frame: call(left(frame), right(frame))
    return lambda frame: call(*[run(frame) for run in runs])


def _not_null(node: Node) -> Run:
    """The value of a node where null, which a wrapper may hold, is not accepted."""
    run = node.run
    if node.type.name != "wrapper":
        return run

    def checked(frame: Frame) -> Any:
        value = run(frame)
        if value is None:
            raise CelRuntimeError("no such overload")
        return value

    return checked


def _truth(node: Node) -> Run:
    """The value of a node where true or false is needed."""
    run = node.run
    if node.type == BOOL:
        return run

    def checked(frame: Frame) -> bool:
        value = run(frame)
        if not isinstance(value, bool):
            raise CelRuntimeError("no such overload")
        return value

    return checked


def _presence(run: Run, described: FieldDescriptor) -> Run:
    name = described.name
    if described.has_presence:
        return lambda frame: run(frame).HasField(name)
    if described.is_repeated:
        return lambda frame: len(getattr(run(frame), name)) > 0
    return lambda frame: getattr(run(frame), name) != described.default_value


def _reading(run: Run, described: FieldDescriptor) -> Run:
    """The value of a field as CEL sees it. A message that is not there reads as an empty one."""
    name = described.name
    if described.is_repeated:
        return lambda frame: list(getattr(run(frame), name))
    message = described.message_type
    if message is None or not message.full_name.startswith("google.protobuf."):
        return lambda frame: getattr(run(frame), name)
    if message.name in WRAPPED:
        return lambda frame: getattr(run(frame), name).value if run(frame).HasField(name) else None
    if message.name in ("Timestamp", "Duration"):
        return lambda frame: getattr(run(frame), name).ToNanoseconds()
    return lambda frame: getattr(run(frame), name) if run(frame).HasField(name) else None


def _comprehension(name: str, values: Run, bound: str, bodies: Sequence[Run]) -> Run:
    body = bodies[-1]

    def each(frame: Frame) -> Iterator[Any]:
        """The values one after the other, each bound to the variable while the body runs."""
        outer = frame.get(bound)
        try:
            for value in values(frame):
                frame[STEPS] -= 1
                if frame[STEPS] < 0:
                    raise CelRuntimeError("actual cost limit exceeded")
                frame[bound] = value
                yield value
        finally:
            frame[bound] = outer

    def decided(frame: Frame, *, by: bool) -> bool:
        failure: Exception | None = None
        for _ in each(frame):
            try:
                if body(frame) == by:
                    return by
            except FAILURES as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return not by

    match name:
        case "all":
            return lambda frame: decided(frame, by=False)
        case "exists":
            return lambda frame: decided(frame, by=True)
        case "exists_one":
            return lambda frame: sum(1 for _ in each(frame) if body(frame)) == 1
        case "filter":
            return lambda frame: [value for value in each(frame) if body(frame)]
    if len(bodies) == 2:
        keep = bodies[0]
        return lambda frame: [body(frame) for _ in each(frame) if keep(frame)]
    return lambda frame: [body(frame) for _ in each(frame)]
