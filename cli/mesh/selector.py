"""Label selectors as people type them behind `-l`.

In:        `app=web,tier!=cache,env in (a,b),!old`.
Out:       a LabelSelector.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from mesh.resources.mistakes import first_error
from mesh.resources.selectors import LabelSelector, Requirement
from service.failure import Failure

_TERM: Final = re.compile(
    r"(?P<key>[^\s=!,()]+)\s*(?:(?P<sign>==|=|!=)\s*(?P<value>[^\s=!,()]*)|\s(?P<word>in|notin)\s*\((?P<set>[^()]*)\))"
    r"|(?P<no>!)?\s*(?P<name>[^\s=!,()]+)"
)
_SPLIT: Final = re.compile(r",(?![^(]*\))")


def parse_selector(text: str) -> LabelSelector:
    """The selector that `text` means; empty: everything. Raises: Failure."""
    terms = []
    for part in _SPLIT.split(text) if text.strip() else ():
        found = _TERM.fullmatch(part.strip())
        if found is None:
            raise Failure(f"--selector: cannot understand {part.strip()[:80]!r}; write key=value, key!=value or !key")
        terms.append(found)
    try:
        return LabelSelector(match_expressions=tuple(_requirement(one) for one in terms))
    except ValidationError as error:
        raise Failure(f"--selector: {first_error(error)}") from None


def _requirement(term: re.Match[str]) -> Requirement:
    if term["name"]:
        return Requirement(key=term["name"], operator="DoesNotExist" if term["no"] else "Exists")
    if term["word"]:
        values = tuple(one.strip() for one in term["set"].split(","))
        return Requirement(key=term["key"], operator="In" if term["word"] == "in" else "NotIn", values=values)
    return Requirement(key=term["key"], operator="NotIn" if term["sign"] == "!=" else "In", values=(term["value"],))
