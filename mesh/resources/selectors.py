"""Selectors over labels, as Kubernetes writes them.

In:        `matchLabels` and `matchExpressions`.
Out:       whether given labels match.
Elsewhere: selectors of Cilium's policies, whose keys name their source, are in mesh/policy/documents/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from pydantic import Field

from mesh.resources.base import Model
from mesh.resources.fields import LabelKey, Labels


class Requirement(Model):
    """One term of a set-based selector. In and NotIn compare with `values`."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Model):
    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Every term holds; the empty selector selects everything."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _TERMS[term.operator](labels.get(term.key), term.values) for term in self.match_expressions
        )


_TERMS: Final[dict[str, Callable[[str | None, Sequence[str]], bool]]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
}
