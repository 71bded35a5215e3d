"""Answers per row from judgements of distinct values.

In:        rows, the tables that they point into, and predicates on single values.
Out:       boolean arrays, one answer per row.
Elsewhere: facts.py reads the values; the other modules say what is asked of them.

Measured on the development machine: a column of 65,535 rows is gathered in 50 to 75 µs, a look-up in a table of answers
takes 40 µs, and-ing two answers 2 µs. So each column is gathered once, and the order of terms hardly matters except
for the few that look at single flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from model.filters.facts import COLUMN_TABLES, Facts, distinct, facts_of, flow_fact, grown, partial_flow, values_of
from model.row import Bit, Kind, Rows
from model.tables import Tables
from model.whole_rows import take
from proto.flow import flow_pb2

Mask = npt.NDArray[np.bool_]
Judge = Callable[[Any], bool]

INDEX_COLUMNS: Final = frozenset(COLUMN_TABLES) | {"aux"}


class Scan:
    """The rows of one call, or some of them. Columns are gathered when first asked for and kept."""

    def __init__(self, rows: Rows, tables: Tables, chosen: npt.NDArray[np.intp] | None = None) -> None:
        self.rows = rows
        self.tables = tables
        self.chosen = chosen
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.rows) if self.chosen is None else len(self.chosen)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A field of the rows, contiguous; table indices as intp, ready for look-ups."""
        column = self._columns.get(name)
        if column is None:
            column = self.rows[name] if self.chosen is None else self.rows[name][self.chosen]
            column = column.astype(np.intp) if name in INDEX_COLUMNS else np.ascontiguousarray(column)
            if name == "aux" and (kinds := self.column("kind")).any():
                column[kinds != Kind.FLOW] = 0  # what stands there is no part of a flow
            self._columns[name] = column
        return column

    def bits(self, bit: Bit) -> Mask:
        """Where a bit of the row is set."""
        mask: Mask = (self.column("bits") & bit) != 0
        return mask

    def narrow(self, hits: Mask) -> Scan:
        """Only the rows where `hits` is true."""
        index = np.flatnonzero(hits)
        return Scan(self.rows, self.tables, index if self.chosen is None else self.chosen[index])

    def selected(self) -> Rows:
        """The rows themselves (a copy unless they are all of them)."""
        return self.rows if self.chosen is None else take(self.rows, self.chosen)

    def odd(self) -> npt.NDArray[np.intp]:
        """Rows whose aux contradicts their own fields. Judge those as messages."""
        return np.flatnonzero(facts_of(self.tables).odd(self.tables, self.column("aux")))


class Term(Protocol):
    """One field of a FlowFilter, or several that look at the same thing. All terms of a filter must hold."""

    cost: int
    """Rank in the order of evaluation; from SLOW on only rows that passed the earlier terms are looked at."""

    def test(self, scan: Scan) -> Mask:
        """Answer per row; rows for which Scan.odd speaks up may get any answer."""

    def matches(self, flow: flow_pb2.Flow) -> bool:
        """The same for one whole message."""


SLOW: Final = 10


class TableTerm:
    """Judges what one table column of the row points at."""

    cost = 2

    def __init__(self, column: str, checks: Sequence[tuple[str, Judge]]) -> None:
        """Shape: `checks` are (question, judge) pairs that must all hold; questions as in Facts.facet."""
        self._column = column
        self._checks = checks
        self._facts: Facts | None = None
        self._judged: list[Mask] = []
        self._answers: Mask = np.zeros(0, np.bool_)

    def test(self, scan: Scan) -> Mask:
        column = scan.column(self._column)
        return self._by_index(scan.tables).take(column)

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return all(judge(flow_fact(flow, self._column, question)) for question, judge in self._checks)

    def _by_index(self, tables: Tables) -> Mask:
        """Answer by table index: each distinct value is judged once, each index answered once."""
        facts = facts_of(tables)
        if facts is not self._facts:
            self._facts = facts
            self._judged = [np.zeros(0, np.bool_) for _ in self._checks]
            self._answers = np.zeros(0, np.bool_)
        table = COLUMN_TABLES[self._column]
        values = values_of(tables, table)
        known = len(self._answers)
        if known < len(values):
            more = np.ones(len(values) - known, np.bool_)
            for position, (question, judge) in enumerate(self._checks):
                facet, judged = facts.facet(table, question), self._judged[position]
                ids = facet.ids(values)[known:]
                if len(judged) < len(facet.values):
                    answers = np.fromiter(map(judge, facet.values[len(judged) :]), np.bool_)
                    judged = self._judged[position] = np.concatenate((judged, answers))
                more &= judged.take(ids)
            self._answers = np.concatenate((self._answers, more))
        return self._answers


class AuxTerm:
    """Judges the rare parts of flows, which stand in aux. Entries that no row asked about are not read."""

    cost = 5

    def __init__(self, judges: Sequence[Callable[[flow_pb2.Flow], bool]]) -> None:
        self._judges = judges
        self._facts: Facts | None = None
        self._answers = np.zeros(0, np.int8)

    def test(self, scan: Scan) -> Mask:
        tables, column = scan.tables, scan.column("aux")
        facts = facts_of(tables)
        if facts is not self._facts:
            self._facts, self._answers = facts, np.zeros(0, np.int8)
        self._answers = grown(self._answers, len(tables.aux))
        answers = self._answers.take(column)
        if len(answers) and answers.min() < 0:
            for index in distinct(column[answers < 0], len(tables.aux)).tolist():
                self._answers[index] = self.matches(partial_flow(tables.aux[index]))
            answers = self._answers.take(column)
        return answers.view(np.bool_)

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return all(judge(flow) for judge in self._judges)


def byte_table(wanted: Sequence[int]) -> Mask:
    """Answer by the value of a one-byte column."""
    answers = np.zeros(256, np.bool_)
    answers[[value for value in wanted if 0 <= value < 256]] = True
    return answers
