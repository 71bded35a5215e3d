"""What can be done with flows besides printing each: files of columns, counts.

In:        batches of rows with their tables.
Out:       Arrow, Parquet or CSV on stdout; tables of counts.
Elsewhere: sources.py brings rows from servers and files; model/arrow_table.py names the columns.
"""

from __future__ import annotations

import codecs
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from cli.errors import CommandError
from cli.output import show, write
from model.arrow_table import rows_to_arrow_table
from model.row import Kind, Rows
from model.tables import Tables
from model.text.style import Style
from model.text.table import align
from model.text.times import TimeFormat
from model.text.tojson import json_text

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS: Final = ("arrow", "parquet", "csv")

GROUPS_KEPT: Final = 100_000
"""Combinations that are counted apart; the rest is counted together."""

REST: Final = "(rest)"


class Sink(Protocol):
    """Takes rows."""

    def add(self, rows: Rows, tables: Tables) -> None:
        """Some more rows, in order of the stream."""

    def tick(self) -> None:
        """Time has passed (only when an interval was asked for)."""

    def finish(self) -> None:
        """The stream has ended, for whatever reason."""


class ColumnFile:
    """Writes flows as Arrow (IPC stream), Parquet or CSV."""

    def __init__(self, form: str) -> None:
        """Raises: CommandError when a terminal would get binary data."""
        if form != "csv" and sys.stdout.isatty():
            raise CommandError(f"{form} is no text: send it to a file, e.g. flowscope observe -o {form} > flows.{form}")
        self._form = form
        self._writer: Any = None

    def add(self, rows: Rows, tables: Tables) -> None:
        table = _plain(rows_to_arrow_table(rows, tables, join_lists=self._form == "csv"))
        if self._writer is None:
            self._writer = self._open(table.schema)
        self._writer.write_table(table)
        if self._form != "parquet":
            sys.stdout.buffer.flush()

    def tick(self) -> None:
        return

    def finish(self) -> None:
        if self._writer is None:
            from model.row import empty_rows

            self.add(empty_rows(0), Tables())
        self._writer.close()
        sys.stdout.buffer.flush()

    def _open(self, schema: pa.Schema) -> Any:
        import pyarrow as pa

        out = pa.PythonFile(Screen() if sys.stdout.isatty() else sys.stdout.buffer, "w")
        if self._form == "arrow":
            return pa.ipc.new_stream(out, schema)
        if self._form == "csv":
            from pyarrow import csv

            return csv.CSVWriter(out, schema)
        from pyarrow import parquet

        return parquet.ParquetWriter(out, schema, compression="zstd")


class Screen:
    """A terminal, which gets text that cannot control it. A file gets the values as they are."""

    closed = False

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def write(self, data: bytes) -> int:
        show(self._decoder.decode(data))
        return len(data)

    def flush(self) -> None:
        sys.stdout.flush()


def _plain(table: pa.Table) -> pa.Table:
    """Text as text: dictionaries differ from batch to batch, which not every reader takes."""
    import pyarrow as pa

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            return kind.value_type
        return pa.list_(plain(kind.value_type)) if pa.types.is_list(kind) else kind

    return table.cast(pa.schema([(field.name, plain(field.type)) for field in table.schema]))


ALIASES: Final = {
    "sport": "source_port",
    "dport": "destination_port",
    "src_ip": "source_ip",
    "dst_ip": "destination_ip",
    "source": "source_pod",
    "destination": "destination_pod",
    "node": "node_name",
    "drop_reason_desc": "drop_reason",
    "traffic_direction": "direction",
    "http_status": "http_code",
}


_PLAIN: Final = Style(colour=False)


def _cell(text: str) -> str:
    """Without the two characters that make cells and rows."""
    return text.replace("\t", "\\t").replace("\n", "\\n")


class GroupCounts:
    """Counts flows per combination of some of their fields."""

    def __init__(self, keys: Sequence[str], top: int, *, as_json: bool, times: TimeFormat) -> None:
        """`top` combinations are shown, 0: all. Raises: CommandError for a field that does not exist."""
        self._titles = tuple(keys)
        self._columns = [_column(key) for key in keys]
        self._top = top
        self._json = as_json
        self._times = times
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._lost = 0
        self._ticked = False

    def add(self, rows: Rows, tables: Tables) -> None:
        lost = rows[rows["kind"] == Kind.LOST]
        if len(lost):
            self._lost += _count_lost(lost, tables)
        table = rows_to_arrow_table(rows, tables, join_lists=True).select(self._columns)
        counted = table.group_by(self._columns).aggregate([([], "count_all")])
        names = [counted.column(name).to_pylist() for name in self._columns]
        counts = self._counts
        for *values, count in zip(*names, counted.column("count_all").to_pylist(), strict=True):
            key = tuple("" if value is None else str(value) for value in values)
            if key not in counts and len(counts) >= GROUPS_KEPT:
                key = (REST,) * len(self._titles)
            counts[key] += count

    def tick(self) -> None:
        self._ticked = True
        self._print(int(time.time()))
        self._counts.clear()
        self._lost = 0

    def finish(self) -> None:
        if not self._ticked or self._counts:
            self._print(int(time.time()) if self._ticked else None)

    def _print(self, now: int | None) -> None:
        shown = self._counts.most_common(self._top or None)
        if self._json:
            write("".join(self._json_line(key, count, now) for key, count in shown))
            return
        total = sum(self._counts.values())
        lines = ["\t".join([*(title.upper() for title in self._titles), "FLOWS", "SHARE"])]
        lines += [
            "\t".join([*(_cell(value) or "-" for value in key), f"{count:,}", f"{100 * count / total:.1f}%"])
            for key, count in shown
        ]
        head = "" if now is None else f"{self._times.one(now, 0)}: {total:,} flows in {len(self._counts):,} groups\n"
        if self._lost:
            head += f"{self._lost:,} events were lost and are not counted\n"
        write(_PLAIN.harmless(head) + align(_PLAIN.harmless("\n".join(lines) + "\n")))
        if now is not None:
            write("\n")

    def _json_line(self, key: tuple[str, ...], count: int, now: int | None) -> str:
        fields = [f'"time":"{self._times.one(now, 0)}"'] if now is not None else []
        fields += [f"{json_text(title)}:{json_text(value)}" for title, value in zip(self._titles, key, strict=True)]
        return "{" + ",".join([*fields, f'"flows":{count}']) + "}\n"


def _column(key: str) -> str:
    from model.row import empty_rows

    name = key.strip().lower().replace(".", "_").replace("-", "_")
    name = ALIASES.get(name, name)
    known = rows_to_arrow_table(empty_rows(0), Tables()).column_names
    if name not in known:
        raise CommandError(f"invalid --group-by field: {key}; known are {', '.join(known)}")
    return name


def _count_lost(rows: Rows, tables: Tables) -> int:
    from proto.flow import flow_pb2

    indices, counts = np.unique(rows["aux"], return_counts=True)
    each = (flow_pb2.LostEvent.FromString(tables.aux[index] or b"").num_events_lost for index in indices.tolist())
    return sum(lost * count for lost, count in zip(each, counts.tolist(), strict=True))
