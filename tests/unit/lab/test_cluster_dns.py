"""The zone cluster.local, by the examples of Kubernetes' DNS specification."""

from __future__ import annotations

from ipaddress import ip_address

from lab.servers.cluster_dns import Zone
from mesh.dns.wire import Answer, Code, Query, Type, unpack_name
from mesh.resources.base import Resource
from mesh.resources.manifests import parse_manifests
from mesh.resources.services import Service
from tests.support.cluster import node, settled

CLUSTER = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, image: pause, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {hostname: db-0, subdomain: db, containers: [{name: db, image: pause}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: shop, labels: {app: db}}
spec: {containers: [{name: db, image: pause}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: dual, namespace: shop}
spec: {selector: {app: web}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: pg, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
"""


def resources(all_ready: bool = True) -> list[Resource]:
    return settled([node(1), *parse_manifests(CLUSTER)], all_ready)


ZONE = Zone(resources())
DB_0, DB_1 = "10.244.1.3", "10.244.1.4"


def own(name: str) -> tuple[str, ...]:
    """Cluster addresses of a service."""
    return next(one.spec.cluster_ips for one in resources() if isinstance(one, Service) and one.name == name)


WEB = own("web")[0]


def ask(name: str, rtype: Type = Type.A, zone: Zone = ZONE, rclass: int = 1) -> Answer:
    return zone.answer(Query(1, name, rtype, True, 512, False, b"", rclass))


def addresses(answer: Answer) -> list[str]:
    return [str(ip_address(one.data)) for one in answer.answers if one.type in (Type.A, Type.AAAA)]


def test_a_service_stands_for_its_own_address() -> None:
    assert addresses(ask("web.shop.svc.cluster.local")) == [WEB]


def test_names_are_compared_without_case_and_answered_as_asked() -> None:
    answer = ask("WEB.Shop.svc.CLUSTER.local")
    assert addresses(answer) == [WEB]
    assert answer.answers[0].name == "WEB.Shop.svc.CLUSTER.local"


def test_a_single_stack_service_has_no_data_for_the_other_family() -> None:
    answer = ask("web.shop.svc.cluster.local", Type.AAAA)
    assert answer.code is Code.NO_ERROR
    assert answer.answers == ()
    assert answer.authority[0].type is Type.SOA
    assert addresses(ask("dual.shop.svc.cluster.local", Type.AAAA)) == [own("dual")[1]]


def test_a_service_has_its_address_whoever_stands_behind_it() -> None:
    assert addresses(ask("idle.shop.svc.cluster.local")) == [own("idle")[0]]


def test_pods_that_are_not_ready_do_not_answer_for_a_headless_service() -> None:
    answer = ask("db.shop.svc.cluster.local", zone=Zone(resources(all_ready=False)))
    assert (answer.code, answer.answers) == (Code.NO_ERROR, ())


def test_what_does_not_exist_is_nxdomain_with_the_zone_s_soa() -> None:
    for name in (
        "nobody.shop.svc.cluster.local",
        "web.other.svc.cluster.local",
        "x.cluster.local",
        "a.b.c.cluster.local",
    ):
        answer = ask(name)
        assert answer.code is Code.NAME_ERROR, name
        assert (answer.authority[0].type, answer.authority[0].name) == (Type.SOA, "cluster.local")


def test_names_between_existing_ones_exist() -> None:
    for name in ("cluster.local", "svc.cluster.local", "shop.svc.cluster.local", "_tcp.web.shop.svc.cluster.local"):
        assert (ask(name).code, ask(name).answers) == (Code.NO_ERROR, ()), name


def test_outside_the_cluster_only_the_names_of_the_lab_s_world_exist() -> None:
    for name in ("nowhere.example", "two.one.one.one", "web", "notcluster.local", ""):
        assert ask(name).code is Code.NAME_ERROR
    assert [one.data for one in ask("One.one.one.one").answers] == [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))]
    assert len(ask("one.one.one.one", Type.AAAA).answers) == 2
    assert (ask("one.one.one.one", Type.TXT).code, ask("one.one.one.one", Type.TXT).answers) == (Code.NO_ERROR, ())
    alias, address = ask("www.example.com").answers
    assert (alias.type, unpack_name(alias.data)) == (Type.CNAME, address.name)


def test_srv_of_a_service_leads_to_its_port_with_the_address_enclosed() -> None:
    answer = ask("_http._tcp.web.shop.svc.cluster.local", Type.SRV)
    data = answer.answers[0].data
    assert int.from_bytes(data[4:6], "big") == 80
    assert unpack_name(data[6:]) == "web.shop.svc.cluster.local"
    assert [str(ip_address(one.data)) for one in answer.additional] == [WEB]
    assert ask("_ftp._tcp.web.shop.svc.cluster.local", Type.SRV).code is Code.NAME_ERROR
    assert ask("_http._udp.web.shop.svc.cluster.local", Type.SRV).code is Code.NAME_ERROR


def test_srv_of_a_headless_service_leads_to_each_pod() -> None:
    answer = ask("_pg._tcp.db.shop.svc.cluster.local", Type.SRV)
    assert [unpack_name(one.data[6:]) for one in answer.answers] == [
        "db-0.db.shop.svc.cluster.local",
        "10-244-1-4.db.shop.svc.cluster.local",
    ]
    assert [str(ip_address(one.data)) for one in answer.additional] == [DB_0, DB_1]


def test_pods_of_a_headless_service_have_names() -> None:
    assert addresses(ask("db.shop.svc.cluster.local")) == [DB_0, DB_1]
    assert addresses(ask("db-0.db.shop.svc.cluster.local")) == [DB_0]
    assert addresses(ask("10-244-1-4.db.shop.svc.cluster.local")) == [DB_1]
    assert ask("db-9.db.shop.svc.cluster.local").code is Code.NAME_ERROR


def test_a_pod_s_address_is_in_its_name() -> None:
    assert addresses(ask("10-244-1-9.shop.pod.cluster.local")) == ["10.244.1.9"]
    assert addresses(ask("fd00-10-244-1--9.shop.pod.cluster.local", Type.AAAA)) == ["fd00:10:244:1::9"]
    assert ask("10-244-1-999.shop.pod.cluster.local").code is Code.NAME_ERROR
    assert ask("10-244-1-9.nowhere.pod.cluster.local").code is Code.NAME_ERROR


def test_addresses_lead_back_to_names() -> None:
    answer = ask(ip_address(DB_0).reverse_pointer, Type.PTR)
    assert [unpack_name(one.data) for one in answer.answers] == ["db-0.db.shop.svc.cluster.local"]
    assert ask("1.2.3.4.in-addr.arpa", Type.PTR).code is Code.NAME_ERROR
    assert ask(ip_address(DB_0).reverse_pointer, Type.A).code is Code.NO_ERROR


def test_an_external_name_is_an_alias() -> None:
    answer = ask("elsewhere.shop.svc.cluster.local", Type.CNAME)
    assert unpack_name(answer.answers[0].data) == "example.com"


def test_the_zone_tells_its_version_and_its_servers() -> None:
    assert ask("dns-version.cluster.local", Type.TXT).answers[0].data == b"\x051.1.0"
    assert ask("cluster.local", Type.SOA).answers[0].type is Type.SOA
    assert unpack_name(ask("cluster.local", Type.NS).answers[0].data) == "ns.dns.cluster.local"


def test_other_classes_are_refused() -> None:
    assert ask("web.shop.svc.cluster.local", rclass=3).code is Code.REFUSED
