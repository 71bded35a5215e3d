"""Names of workloads: pods, services, workloads, clusters, identities, interfaces.

In:        lists of a flow.FlowFilter.
Out:       judges of one value, as scan.py's TableTerm asks for them.
Elsewhere: labels.py judges label sets, patterns.py DNS and node names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model.filters.errors import InvalidFilter
from model.filters.scan import Judge
from model.tables import Interface, Service
from proto.flow import flow_pb2

EMPTY_NAME = "invalid filter, name must not be empty"


class NamespacedNames:
    """`[namespace/]prefix`: the namespace exact, the name by its start. Without `/` the namespace is `default`."""

    def __init__(self, field: str, entries: Sequence[str], prefix: str = "") -> None:
        """Raises: InvalidFilter for an empty entry; the message starts with `prefix`."""
        starts: dict[str | None, list[str]] = {}
        for entry in entries:
            if not entry:
                raise InvalidFilter(field, prefix + EMPTY_NAME)
            namespace, name = namespace_and_name(entry)
            starts.setdefault(namespace, []).append(name)
        self._anywhere = tuple(starts.pop(None, ()))
        self._starts = {namespace: tuple(names) for namespace, names in starts.items()}

    def has(self, name: tuple[str, str]) -> bool:
        """Shape: (namespace, name). Nothing has no name, not even for `/`."""
        if name == ("", ""):
            return False
        return name[1].startswith(self._starts.get(name[0], ())) or name[1].startswith(self._anywhere)

    def has_service(self, service: Service | None) -> bool:
        """The same for a service; None is a flow without one."""
        return service is not None and self.has((service.namespace, service.name))


def namespace_and_name(entry: str) -> tuple[str | None, str]:
    """Namespace and start of the name that an entry asks for; None is any namespace."""
    parts = entry.split("/")
    if len(parts) == 1:
        return "default", entry
    return parts[0] or None, parts[1]


def workload_judge(entries: Iterable[flow_pb2.Workload]) -> Judge:
    """Judges tuples of (name, kind): one of them equals an entry, in which an empty part means any."""
    wanted = {(entry.name, entry.kind) for entry in entries}

    def judge(workloads: tuple[tuple[str, str], ...]) -> bool:
        return any(not wanted.isdisjoint({(name, kind), (name, ""), ("", kind), ("", "")}) for name, kind in workloads)

    return judge


def cluster_judge(field: str, entries: Sequence[str]) -> Judge:
    """Judges cluster names: equal to an entry. Raises InvalidFilter for an empty one."""
    if "" in entries:
        raise InvalidFilter(field, EMPTY_NAME)
    return frozenset(entries).__contains__


def identity_judge(entries: Sequence[int]) -> Judge:
    """Judges identities; None, a missing endpoint, is none of them."""
    return frozenset(entries).__contains__


def interface_judge(entries: Iterable[flow_pb2.NetworkInterface]) -> Judge:
    """Judges interfaces: index and name equal those of an entry, in which 0 and empty mean any."""
    wanted = {(entry.index, entry.name) for entry in entries}

    def judge(interface: Interface | None) -> bool:
        if interface is None:
            return False
        index, name = interface.index, interface.name
        return not wanted.isdisjoint({(index, name), (index, ""), (0, name), (0, "")})

    return judge
