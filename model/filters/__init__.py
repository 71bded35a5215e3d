"""Filters: which flows a request asks for.

In:        flow.FlowFilter messages of a request, a flag or a file.
Out:       `compile_filters`: a predicate over rows; `explain`: the same in words; `InvalidFilter`: why it is refused.
Elsewhere: cli/ builds FlowFilters from flags; observer/ and relay/ walk their rings with the predicate.

Every field of Hubble 1.19 is evaluated with its semantics, per distinct value where a value can repeat: a pod name, a
label set or a URL is judged once, and rows look the answer up.
"""

from __future__ import annotations

from model.filters.compile import FlowPredicate, compile_filters
from model.filters.errors import InvalidFilter
from model.filters.explain import explain

__all__ = ["FlowPredicate", "InvalidFilter", "compile_filters", "explain"]
