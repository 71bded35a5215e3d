"""Field masks of requests: which parts of a flow the client asked for.

In:        paths of a google.protobuf.FieldMask, relative to flow.Flow.
Out:       a tree of field names, and cut messages.
Elsewhere: encode.py cuts the pieces of its templates once, so a masked stream costs no more than a full one.
Source:    flow API 1.19, GetFlowsRequest.field_mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from proto.flow import flow_pb2

M = TypeVar("M", bound=Message)

Tree = Mapping[str, "Tree"]
"""Names below a message; a name with an empty tree is asked for as a whole."""

WHOLE: Final[Tree] = {}


class InvalidMask(ValueError):
    """A path that names nothing in flow.Flow. The text is the reference's; `path` is the culprit."""

    def __init__(self, path: str) -> None:
        super().__init__("invalid fieldmask")
        self.path = path


class FieldMask:
    """The fields of flow.Flow that a client wants. A mask without paths does not exist: see `parse`."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.skeleton: Final = self.apply(flow_pb2.Flow()).SerializeToString(deterministic=True)
        """The parents of deep paths: a flow has them, if empty, even when it had none before."""

    @classmethod
    def parse(cls, paths: Iterable[str]) -> FieldMask | None:
        """The mask of these paths; None, which is everything, when there are none.

        Raises: InvalidMask for a path that does not resolve: an unknown name, or a name below a scalar or a list.
        """
        tree: dict[str, Any] = {}
        for path in sorted(paths):
            _check(path)
            _add(tree, path.split("."))
        return cls(tree) if tree else None

    def below(self, name: str) -> Tree | None:
        """What is asked for in a field of flow.Flow: None is nothing, WHOLE is all of it."""
        return self.tree.get(name)

    def apply(self, flow: flow_pb2.Flow) -> flow_pb2.Flow:
        """A masked copy. A deep path makes its parent message even where the flow has none."""
        masked = flow_pb2.Flow()
        _copy(masked, flow, self.tree, make_parents=True)
        return masked

    def cut(self, flow: flow_pb2.Flow) -> flow_pb2.Flow:
        """A masked copy without made-up parents: for parts of a flow, which a client merges with `skeleton`."""
        masked = flow_pb2.Flow()
        _copy(masked, flow, self.tree, make_parents=False)
        return masked


def cut_message(message: M, tree: Tree) -> M:
    """The asked for part of any message; parents are not made up."""
    if not tree:
        return message
    masked = type(message)()
    _copy(masked, message, tree, make_parents=False)
    return masked


def _check(path: str) -> None:
    descriptor: Any = flow_pb2.Flow.DESCRIPTOR
    for name in path.split("."):
        field = descriptor.fields_by_name.get(name) if descriptor is not None else None
        if field is None:
            raise InvalidMask(path)
        descriptor = None if field.is_repeated else field.message_type


def _add(tree: dict[str, Any], names: list[str]) -> None:
    """Put a path into the tree. Paths come sorted, so one that contains others comes before them."""
    *parents, leaf = names
    for name in parents:
        if name in tree and not tree[name]:
            return
        tree = tree.setdefault(name, {})
    tree[leaf] = {}


def _copy(target: Message, source: Message, tree: Tree, *, make_parents: bool) -> None:
    # Members of one oneof push each other out. The one that the flow has comes last, so it stays.
    for name in sorted(tree, key=lambda name: _has(source, name)):
        subtree, present = tree[name], _has(source, name)
        if subtree and (present or make_parents):
            parent = getattr(target, name)
            parent.SetInParent()
            _copy(parent, getattr(source, name), subtree, make_parents=make_parents)
        elif present:
            _copy_field(target, source, name)


def _has(message: Message, name: str) -> bool:
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        return len(getattr(message, name)) > 0
    if field.has_presence:
        return message.HasField(name)
    return bool(getattr(message, name))


def _copy_field(target: Message, source: Message, name: str) -> None:
    field, value = target.DESCRIPTOR.fields_by_name[name], getattr(source, name)
    if field.is_repeated:
        getattr(target, name).extend(value)
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)
