"""Arrow arrays from Python values and from numpy, and numpy from Arrow arrays, by their buffers.

In:        numbers as numpy arrays; texts, bytes, lists and tuples, None for null.
Out:       pyarrow arrays, and numpy views of such.
Elsewhere: columns.py says which columns there are.
Source:    Apache Arrow columnar format 1.0, physical memory layout.

pyarrow's own conversions (`pa.array`, `to_numpy`) ask whether a value is one of pandas, and import pandas to ask: 0.3 s
and 50 MB for each process that only sends or prints flows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa


def from_numbers(values: npt.NDArray[Any]) -> pa.Array:
    """A column of numbers; two dimensions of bytes become one of fixed-size binary."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype) if values.ndim == 1 else pa.binary(values.shape[1])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def to_numbers(array: pa.Array, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """The values of a column of numbers or of fixed-size binary without nulls, as items of `kind`; a view."""
    if not len(array):
        return np.empty(0, kind)
    start = array.offset * kind.itemsize
    return np.frombuffer(array.buffers()[1], kind, len(array), start)


def from_values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column of `kind`: binary, text, numbers, lists and structs (as tuples, in the order of the fields) of those."""
    import pyarrow as pa

    missing = [value is None for value in values]
    validity = None
    if any(missing):
        validity = pa.py_buffer(np.packbits(~np.array(missing), bitorder="little").tobytes())
    count = len(values)
    if pa.types.is_struct(kind):
        children = [
            from_values([None if value is None else value[number] for value in values], kind.field(number).type)
            for number in range(kind.num_fields)
        ]
        return pa.Array.from_buffers(kind, count, [validity], children=children)
    if pa.types.is_list(kind):
        flat = [item for value in values for item in value or ()]
        offsets = _offsets([len(value or ()) for value in values])
        return pa.Array.from_buffers(kind, count, [validity, offsets], children=[from_values(flat, kind.value_type)])
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        parts = [b"" if value is None else value.encode() if isinstance(value, str) else value for value in values]
        offsets = _offsets(list(map(len, parts)))
        return pa.Array.from_buffers(kind, count, [validity, offsets, pa.py_buffer(b"".join(parts))])
    numbers = np.array([value or 0 for value in values], kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, count, [validity, pa.py_buffer(numbers)])


def _offsets(lengths: list[int]) -> pa.Buffer:
    import pyarrow as pa

    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    if ends[-1] > 2**31 - 1:
        raise ValueError("more than 2 GiB of text in one column")
    return pa.py_buffer(ends.astype(np.int32))
