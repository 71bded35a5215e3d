"""One row as plain Python values, for code that runs once per distinct value.

In:        one row.
Out:       RowValues.
Elsewhere: row.py says what the fields mean. Nothing that runs for every row belongs here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RowValues(NamedTuple):
    """The fields of ROW, in its order."""

    ts_ns: int
    seq: int
    src_ip_hi: int
    src_ip_lo: int
    dst_ip_hi: int
    dst_ip_lo: int
    src: int
    dst: int
    src_names: int
    dst_names: int
    src_svc: int
    dst_svc: int
    iface: int
    node: int
    aux: int
    event_type: int
    sub_type: int
    drop_reason: int
    sport: int
    dport: int
    proxy_port: int
    tcp_flags: int
    bits: int
    smac: list[int]
    dmac: list[int]
    kind: int
    flow_type: int
    verdict: int
    ip_version: int
    l4: int
    is_reply: int
    direction: int
    obs_point: int
    trace_reason: int
    match_type: int


def row_values(row: np.void) -> RowValues:
    """The values of one row."""
    return RowValues._make(row.item())
