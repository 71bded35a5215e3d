"""Batches of rows as Arrow IPC streams, each complete in itself, and back.

In:        rows and their tables; bytes from another process.
Out:       one Arrow IPC stream: schema, dictionaries, record batch; rows interned into the reader's tables.
Elsewhere: arrow_table.py makes friendly columns for people; relay, CLI and UI read what is made here.
Source:    Apache Arrow columnar format 1.0, IPC streaming format.

Columns are the fields of ROW under their names. A field that points into a table is a dictionary column: its values are
the entries that this batch uses, the first one null for "absent". Fields that point into one table (src and dst) are
one column of pairs, so that their dictionary travels once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from model.arrow_arrays import from_numbers, from_values, to_numbers
from model.arrow_table import rows_to_arrow_table
from model.flow_parts import split_aux
from model.row import IPV6, L4, ROW, Kind, Reply, Rows, empty_rows
from model.tables import TABLE_FIELDS, Interface, Node, Service, Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2

__all__ = ["from_arrow_ipc", "rows_to_arrow_table", "to_arrow_ipc"]

if TYPE_CHECKING:
    import pyarrow as pa

VERSION: Final = b"1"
"""Of the layout; grows when a reader of the former one would misunderstand."""
VERSION_KEY: Final = b"flowscope.rows"

_POINTERS: Final = {field: table for table, fields in TABLE_FIELDS.items() for field in fields}
_PLAIN_FIELDS: Final = tuple(name for name in ROW.names or () if name not in _POINTERS)
_INDEX: Final = np.uint32

_LIMITS: Final = {"kind": max(Kind), "l4": max(L4), "ip_version": IPV6, "is_reply": max(Reply)}
"""Largest values of fields whose meaning is a closed set."""

_EVENTS: Final[dict[int, Any]] = {
    Kind.FLOW: flow_pb2.Flow,
    Kind.LOST: flow_pb2.LostEvent,
    Kind.AGENT: flow_pb2.AgentEvent,
    Kind.DEBUG: flow_pb2.DebugEvent,
}
"""What stands in aux, by kind."""


def to_arrow_ipc(rows: Rows, tables: Tables) -> bytes:
    """An Arrow IPC stream of one record batch with these rows and the table entries that they use."""
    import pyarrow as pa

    columns: dict[str, Any] = {name: from_numbers(rows[name]) for name in _PLAIN_FIELDS}
    for table, fields in TABLE_FIELDS.items():
        indices = np.stack([rows[field] for field in fields], axis=1).ravel()
        used, compact = compacted(indices, len(tables.table(table)))
        values = tables.table(table).values
        as_arrow = _AS_ARROW.get(table, _same)
        entries = from_values([as_arrow(values[index]) for index in used.tolist()], _types()[table])
        column = pa.DictionaryArray.from_arrays(from_numbers(compact), entries)
        columns[table] = pa.FixedSizeListArray.from_arrays(column, len(fields)) if len(fields) > 1 else column
    batch = pa.record_batch(list(columns.values()), schema=_schema())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def from_arrow_ipc(data: bytes, tables: Tables) -> Rows:
    """The rows of a stream made by `to_arrow_ipc`, pointing into `tables`, which take up what they did not have.

    Raises: ValueError with one line when `data` is not such a stream; `tables` may have grown then.
    """
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(data) as reader:
            _check_schema(reader.schema)
            batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, EOFError) as error:
        raise ValueError(f"not a batch of flows: {_one_line(error)}") from error
    if len(batches) == 1:
        return _read_batch(batches[0], tables)
    return np.concatenate([empty_rows(0), *(_read_batch(batch, tables) for batch in batches)])


def compacted(indices: npt.NDArray[np.uint32], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """The distinct ones of `indices` into a table of `size` entries, 0 always first; and each index's place there."""
    if size > _SORT_FROM * len(indices):
        used = np.union1d(indices, np.zeros(1, _INDEX))
        return used.astype(np.int64), np.searchsorted(used, indices).astype(_INDEX)
    is_used = np.zeros(size, np.bool_)
    is_used[indices] = is_used[0] = True
    places = np.cumsum(is_used, dtype=_INDEX) - _INDEX(1)
    return np.flatnonzero(is_used), places[indices]


_SORT_FROM: Final = 16
"""A table so many times larger than the batch is not walked through."""


def _read_batch(batch: pa.RecordBatch, tables: Tables) -> Rows:
    rows = empty_rows(batch.num_rows)
    for name in _PLAIN_FIELDS:
        rows[name] = _plain_values(name, batch.column(name))
    for field, largest in _LIMITS.items():
        if rows[field].max(initial=0) > largest:
            raise ValueError(f"not a batch of flows: {field} {rows[field].max()} does not exist")
    for table, fields in TABLE_FIELDS.items():
        indices, entries = _dictionary(table, batch.column(table), len(fields))
        moved = _intern(table, entries, tables)
        for number, field in enumerate(fields):
            rows[field] = moved[indices[:, number]]
    _check_aux(rows, tables)
    return rows


def _plain_values(name: str, column: Any) -> npt.NDArray[Any]:
    if column.null_count:
        raise ValueError(f"not a batch of flows: {name} lacks values")
    kind = ROW[name]
    if kind.subdtype is None:
        return to_numbers(column, kind)
    base, (width,) = kind.subdtype
    return to_numbers(column, np.dtype((np.void, width))).view(base).reshape(-1, width)


def _dictionary(table: str, column: Any, width: int) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """Indices (n, width) and the dictionary's values."""
    count = len(column)
    if width > 1:
        column = column.flatten()
    if column.null_count or len(column) != count * width:
        raise ValueError(f"not a batch of flows: {table} lacks values")
    return to_numbers(column.indices, np.dtype(_INDEX)).astype(np.int64).reshape(
        -1, width
    ), column.dictionary.to_pylist()


def _intern(table: str, entries: list[Any], tables: Tables) -> npt.NDArray[np.uint32]:
    target = tables.table(table)
    try:
        values = [None if entry is None else _FROM_ARROW.get(table, _same)(entry) for entry in entries]
        if table == "endpoints":
            for value in values:
                if value is not None and value not in target:
                    flow_pb2.Endpoint.FromString(value)
    except (DecodeError, TypeError) as error:
        raise ValueError(f"not a batch of flows: {table}: {_one_line(error)}") from error
    # One more, so that a batch without rows may come without dictionary entries.
    return np.append(target.intern_all(values), np.uint32(0))


def _check_aux(rows: Rows, tables: Tables) -> None:
    """Whoever reads aux later relies on its being what the row's kind says."""
    pairs = np.unique(rows["aux"].astype(np.uint64) << np.uint64(8) | rows["kind"])
    for pair in pairs.tolist():
        value, kind = tables.aux[pair >> 8], pair & 0xFF
        try:
            if value is not None:
                event, outer = split_aux(value)
                _EVENTS[kind].FromString(event)
                observer_pb2.GetFlowsResponse.FromString(outer or b"")
        except (DecodeError, ValueError) as error:
            raise ValueError(f"not a batch of flows: aux: {_one_line(error)}") from error


def _check_schema(schema: pa.Schema) -> None:
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        raise ValueError(f"not a batch of flows: its schema does not say {VERSION_KEY.decode()}")
    if version != VERSION:
        raise ValueError(
            f"flows as columns of version {version[:20].decode(errors='replace')!r}; this program reads version "
            f"{VERSION.decode()!r}: use the same release on both sides"
        )
    if not schema.equals(_schema()):
        raise ValueError("not a batch of flows: its columns are others")


def _schema() -> pa.Schema:
    import pyarrow as pa

    if not _SCHEMA:
        fields = [(name, _plain_type(ROW[name])) for name in _PLAIN_FIELDS]
        for table, of_rows in TABLE_FIELDS.items():
            kind = pa.dictionary(pa.uint32(), _types()[table])
            fields.append((table, pa.list_(pa.field("item", kind), len(of_rows)) if len(of_rows) > 1 else kind))
        _SCHEMA.append(pa.schema(fields, {VERSION_KEY: VERSION}))
    return _SCHEMA[0]


_SCHEMA: Final[list[Any]] = []
"""The schema, once somebody needed it: pyarrow takes 60 MB, so it is loaded late."""


def _plain_type(kind: np.dtype[Any]) -> Any:
    import pyarrow as pa

    return pa.from_numpy_dtype(kind) if kind.subdtype is None else pa.binary(kind.itemsize)


def _types() -> dict[str, Any]:
    import pyarrow as pa

    if not _TYPES:
        texts = pa.list_(pa.string())
        _TYPES.update(
            endpoints=pa.binary(),
            names=texts,
            services=pa.struct({"name": pa.string(), "namespace": pa.string()}),
            ifaces=pa.struct({"index": pa.uint32(), "name": pa.string()}),
            nodes=pa.struct({"name": pa.string(), "labels": texts, "boot": pa.uint64(), "version": pa.string()}),
            aux=pa.binary(),
        )
    return _TYPES


_TYPES: Final[dict[str, Any]] = {}


def _same(value: Any) -> Any:
    return value


def _node(entry: dict[str, Any]) -> Node:
    return Node(_text(entry["name"]), tuple(map(_text, entry["labels"])), int(entry["boot"]), _text(entry["version"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is null")
    return value


_AS_ARROW: Final[dict[str, Callable[[Any], Any]]] = {
    "services": lambda value: value and (value.name, value.namespace),
    "ifaces": lambda value: value and (value.index, value.name),
    "nodes": lambda value: value and (value.name, value.labels, value.boot, value.version),
}
_FROM_ARROW: Final[dict[str, Callable[[Any], Any]]] = {
    "names": lambda entry: tuple(map(_text, entry)),
    "services": lambda entry: Service(_text(entry["name"]), _text(entry["namespace"])),
    "ifaces": lambda entry: Interface(int(entry["index"]), _text(entry["name"])),
    "nodes": _node,
}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
