"""The kernel as a source: the perf rings of a pinned event map.

In:        the folder of the datapath's pins.
Out:       a Source, or a Failure with one line that names the remedy.
Elsewhere: perf.py reads the rings; bpf/ writes them.
"""

from __future__ import annotations
