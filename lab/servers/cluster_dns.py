"""The zone cluster.local, answered as CoreDNS' kubernetes plug-in answers.

In:        services, pods and namespaces; a name and a type.
Out:       an Answer: records, or NXDOMAIN or no data with the zone's SOA.
Elsewhere: mesh/dns/wire.py knows bytes; coredns.py watches the store. Source: Kubernetes DNS-based service discovery,
           specification 1.1.0; settings as kubeadm installs them (ttl 30, pods insecure).

Names outside the cluster are those of lab/world.py: nothing is forwarded, as there is nobody to forward to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from lab import world
from mesh.backends import Backend, Directory
from mesh.dns.wire import (
    CLASS_IN,
    Answer,
    Code,
    Query,
    Record,
    Type,
    pack_address,
    pack_name,
    pack_soa,
    pack_srv,
    pack_txt,
    unpack_name,
)
from mesh.resources.base import Resource
from mesh.resources.cluster import Namespace
from mesh.resources.services import Service

ZONE: Final = "cluster.local"
TTL_S: Final = 30
NEGATIVE_TTL_S: Final = 30
SCHEMA_VERSION: Final = "1.1.0"
SOA_TIMERS_S: Final = (7200, 1800, 86400, NEGATIVE_TTL_S)
PRIMARY: Final = f"ns.dns.{ZONE}"

IpAddress = IPv4Address | IPv6Address


def resolve_service(service: Service, backends: Sequence[Backend]) -> list[IpAddress]:
    """The addresses that a service's name stands for: its own, or those of its backends when it has none (headless)."""
    if service.headless:
        return [ip_address(backend.address) for backend in backends]
    return [ip_address(address) for address in service.spec.cluster_ips]


@dataclass(frozen=True, slots=True)
class Entry:
    """One service as the zone needs it."""

    service: Service
    backends: tuple[Backend, ...]

    def hosts(self) -> dict[str, list[IpAddress]]:
        """Names of single backends: the hostname a pod asked for, else its address with dashes."""
        named: dict[str, list[IpAddress]] = defaultdict(list)
        for backend in self.backends:
            named[host_label(backend)].append(ip_address(backend.address))
        return named


class Zone:
    """Everything the server knows at one moment; built anew when the store changes."""

    def __init__(self, resources: Iterable[Resource], serial: int = 1) -> None:
        resources = list(resources)
        directory = Directory(resources)
        self._serial = serial
        self._services: dict[tuple[str, str], Entry] = {
            (one.namespace, one.name): Entry(one, tuple(directory.ready(one)))
            for one in resources
            if isinstance(one, Service)
        }
        self._namespaces = {one.name for one in resources if isinstance(one, Namespace)}
        self._namespaces |= {one.namespace for one in resources if one.namespace}
        self._reverse = self._reverse_names()

    def answer(self, query: Query) -> Answer:
        """What to say to one question."""
        if query.rclass != CLASS_IN:
            return Answer(Code.REFUSED, authoritative=False)
        name = query.name.lower()
        if name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self._pointer(query, name)
        if name != ZONE and not name.endswith(f".{ZONE}"):
            return self._outside(query, name)
        found = self._find(query.name, name)
        if found is None:
            return self._none(ZONE, exists=False)
        matching = [one for one in found if query.type in (one.type, Type.ANY)]
        if not matching:
            return self._none(ZONE, exists=True)
        return Answer(answers=tuple(matching), additional=tuple(self._glue(matching)))

    def _outside(self, query: Query, name: str) -> Answer:
        """What a server of the world would say; CoreDNS asks one for every name that is not the cluster's."""
        target = world.ALIASES.get(name)
        alias = [Record(query.name, Type.CNAME, world.TTL_S, pack_name(target))] if target else []
        found = world.NAMES.get(target or name)
        if found is None:
            return self._none("", exists=False)
        kinds = {4: Type.A, 6: Type.AAAA}
        records = [
            Record(target or query.name, kinds[one.version], world.TTL_S, pack_address(one))
            for one in found
            if query.type in (kinds[one.version], Type.ANY)
        ]
        if not records and not alias:
            return self._none("", exists=True)
        return Answer(answers=(*alias, *records), authoritative=False)

    def _find(self, own: str, name: str) -> list[Record] | None:
        """All records of a name in the zone, every type; None when there is no such name.

        own  the name as it was asked: records carry it, so that a client finds its own spelling again.
        """
        labels = name.removesuffix(ZONE).rstrip(".").split(".") if name != ZONE else []
        match labels:
            case []:
                return [self._soa(own), Record(own, Type.NS, TTL_S, pack_name(PRIMARY))]
            case ["dns-version"]:
                return [Record(own, Type.TXT, TTL_S, pack_txt(SCHEMA_VERSION))]
            case ["svc"] | ["pod"] | ["dns"]:
                return []
            case ["ns", "dns"]:
                return self._addresses(own, self._name_servers())
            case [namespace, "svc" | "pod"]:
                return [] if namespace in self._namespaces else None
            case [address, namespace, "pod"]:
                return self._pod(own, address) if namespace in self._namespaces else None
            case [*rest, service, namespace, "svc"]:
                entry = self._services.get((namespace, service))
                return None if entry is None else self._service(own, rest, entry)
        return None

    def _service(self, own: str, rest: Sequence[str], entry: Entry) -> list[Record] | None:
        """Records below a service: itself, _port._protocol, or one backend's name."""
        service = entry.service
        base = f"{service.name}.{service.namespace}.svc.{ZONE}"
        if service.spec.type == "ExternalName":
            return None if rest else [Record(own, Type.CNAME, TTL_S, pack_name(service.spec.external_name))]
        match rest:
            case []:
                return [*self._addresses(own, resolve_service(service, entry.backends)), *self._srv(own, base, entry)]
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                found = self._srv(own, base, entry, port[1:], protocol[1:])
                return found or None
            case [protocol] if protocol.startswith("_"):
                # The name in the middle of _port._protocol exists when something is below it.
                known = {one.protocol.lower() for one in service.spec.ports}
                return [] if protocol[1:] in known else None
            case [host]:
                addresses = entry.hosts().get(host)
                return self._addresses(own, addresses) if addresses else None
        return None

    def _srv(self, own: str, base: str, entry: Entry, port: str = "", protocol: str = "") -> list[Record]:
        """SRV records: the service itself as target, or each backend of a headless service."""
        records = []
        for one in entry.service.spec.ports:
            if port and (one.name != port or one.protocol.lower() != protocol):
                continue
            if entry.service.headless:
                for backend in entry.backends:
                    number = next((target for named, target in backend.ports if named == one), one.port)
                    target = f"{host_label(backend)}.{base}"
                    records.append(Record(own, Type.SRV, TTL_S, pack_srv(0, 100, number, target)))
            else:
                records.append(Record(own, Type.SRV, TTL_S, pack_srv(0, 100, one.port, base)))
        return records

    def _glue(self, records: Sequence[Record]) -> Iterator[Record]:
        """Addresses of SRV targets, which save the client a question."""
        targets = dict.fromkeys(unpack_name(record.data[6:]) for record in records if record.type is Type.SRV)
        for target in targets:
            yield from (one for one in self._find(target, target) or () if one.type in (Type.A, Type.AAAA))

    def _pod(self, own: str, label: str) -> list[Record] | None:
        """`10-244-1-5`: the address is in the name, so the pod need not exist (pods insecure)."""
        text = label.replace("-", ":") if label.count("-") != 3 or "--" in label else label.replace("-", ".")
        try:
            return self._addresses(own, [ip_address(text)])
        except ValueError:
            return None

    def _pointer(self, query: Query, name: str) -> Answer:
        names = self._reverse.get(name)
        suffix = "in-addr.arpa" if name.endswith("in-addr.arpa") else "ip6.arpa"
        if not names:
            return self._none(suffix, exists=False)
        if query.type not in (Type.PTR, Type.ANY):
            return self._none(suffix, exists=True)
        return Answer(answers=tuple(Record(query.name, Type.PTR, TTL_S, pack_name(one)) for one in names))

    def _reverse_names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        for entry in self._services.values():
            base = f"{entry.service.name}.{entry.service.namespace}.svc.{ZONE}"
            for address in entry.service.spec.cluster_ips:
                if address != "None":
                    names[ip_address(address).reverse_pointer].append(base)
            for host, addresses in entry.hosts().items():
                for one in addresses:
                    names[one.reverse_pointer].append(f"{host}.{base}")
        return names

    def _name_servers(self) -> list[IpAddress]:
        entry = self._services.get(("kube-system", "kube-dns"))
        return resolve_service(entry.service, entry.backends) if entry else []

    def _none(self, zone: str, exists: bool) -> Answer:
        """No such name, or no such type; both carry the SOA, whose minimum says how long to remember that."""
        code = Code.NO_ERROR if exists else Code.NAME_ERROR
        return Answer(code, authority=(self._soa(zone),))

    def _soa(self, owner: str) -> Record:
        data = pack_soa(PRIMARY, f"hostmaster.{ZONE}", self._serial & 0xFFFFFFFF, SOA_TIMERS_S)
        return Record(owner, Type.SOA, NEGATIVE_TTL_S, data)

    @staticmethod
    def _addresses(owner: str, addresses: Iterable[IpAddress]) -> list[Record]:
        kinds = {4: Type.A, 6: Type.AAAA}
        return [Record(owner, kinds[one.version], TTL_S, pack_address(one)) for one in addresses]


def host_label(backend: Backend) -> str:
    """First label of a backend's own name."""
    return backend.hostname or backend.address.replace(".", "-").replace(":", "-")
