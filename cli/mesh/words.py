"""What a shell may offer behind `mesh get`, `describe` and `delete`.

In:        the words typed so far.
Out:       kinds; behind a kind the names that there are.
"""

from __future__ import annotations

from cli.command import Call
from cli.mesh.kinds import find_kinds, kinds
from cli.mesh.place import find_place, opened
from cli.mesh.view import View
from service.failure import Failure


def candidates(call: Call) -> list[str]:
    """Never an error: whoever types a command wants none about another one."""
    if not call.words:
        return [*(one.shown.plural for one in kinds().values()), "all"]
    try:
        place = find_place(call)
        wanted = find_kinds(call.words[0])
        with opened(place) as store:
            view = View(store.find(), place)
    except Failure:
        return []
    namespace = None if call.values.get("all-namespaces") else call.text("namespace")
    return [
        one.name
        for kind in wanted
        for one in [*view.resources, *(kind.shown.derive(view) if kind.shown.derive else ())]
        if one.kind == kind.kind and (not kind.namespaced or namespace in (None, one.namespace))
        if one.name not in call.words[1:]
    ]
