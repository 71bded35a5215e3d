"""Copying rows whole.

In:        arrays of rows, or of any other records.
Out:       the same rows elsewhere.
Elsewhere: row.py says what a row is.

numpy copies structured arrays field by field: 70 ns to assign a row, 170 ns to take one by index. As opaque bytes it
takes 1 to 4 ns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Records: TypeAlias = npt.NDArray[np.void]
Where: TypeAlias = npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]


def take(records: Records, at: Where) -> Records:
    """`records[at]` for indices or a mask."""
    whole = _opaque(records)
    # As methods, both are about a third faster than the brackets that stand for them.
    found = whole.compress(at) if at.dtype == np.bool_ else whole.take(at)
    return found.view(records.dtype)


def put(records: Records, at: Where | slice, values: Records) -> None:
    """`records[at] = values`."""
    _opaque(records)[at] = _opaque(values)


def copied(records: Records) -> Records:
    """`records.copy()`."""
    return _opaque(records).copy().view(records.dtype)


def joined(parts: Sequence[Records]) -> Records:
    """`np.concatenate(parts)`; at least one part, all of one type. The only part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([_opaque(part) for part in parts]).view(parts[0].dtype)


def _opaque(records: Records) -> Records:
    return records.view(f"V{records.itemsize}")
