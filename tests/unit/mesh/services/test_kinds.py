"""Documents around services: what is taken, what is refused and how it is said."""

from __future__ import annotations

import pytest

from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from mesh.resources.services import Service
from mesh.services.kinds import ConfigMap

METALLB = """
apiVersion: v1
kind: ConfigMap
metadata: {namespace: metallb-system, name: config}
data:
  config: |
    address-pools:
    - name: default
      protocol: layer2
      addresses:
      - 172.18.255.200-172.18.255.250
"""
FULL = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.3.4
  clusterIPs: [10.96.3.4]
  ipFamilies: [IPv4]
  ipFamilyPolicy: SingleStack
  externalIPs: [192.0.2.7]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  loadBalancerSourceRanges: [192.0.2.0/24]
  loadBalancerClass: io.cilium/l2-announcer
  loadBalancerIP: 172.18.255.201
  allocateLoadBalancerNodePorts: true
  publishNotReadyAddresses: true
  healthCheckNodePort: 31000
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080, protocol: TCP, appProtocol: http}
  - {name: dns, port: 80, targetPort: 53, protocol: UDP}
status:
  loadBalancer: {ingress: [{ip: 172.18.255.201, ipMode: VIP}]}
"""


def service(text: str = FULL) -> Service:
    (found,) = parse_manifests(text)
    assert isinstance(found, Service)
    return found


def test_a_service_is_read_with_all_its_fields_and_given_back() -> None:
    found = service()
    assert found.spec.session_affinity_config.client_ip.timeout_seconds == 60
    assert found.balancer_ips == ("172.18.255.201",)
    assert found.dump()["spec"]["healthCheckNodePort"] == 31000
    assert service(str(found.dump())) == found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nodePort: 30080", "nodePort: 8080", "spec.ports[0].nodePort: must be 30000 to 32767"),
        ("type: LoadBalancer", "type: ClusterIP", "spec: ports[0].nodePort may not be used when type is ClusterIP"),
        ("port: 80, targetPort: 53, protocol: UDP", "port: 80", "spec: ports[1] is the same as ports[0]: 80 TCP"),
        ("timeoutSeconds: 60", "timeoutSeconds: 0", "spec.sessionAffinityConfig.clientIP.timeoutSeconds: must be"),
        ("192.0.2.0/24", "192.0.2.0/33", "spec.loadBalancerSourceRanges[0]: must be a CIDR"),
        ("externalTrafficPolicy: Local", "externalTrafficPolicy: Near", "spec.externalTrafficPolicy: must be"),
        ("clusterIPs: [10.96.3.4]", "clusterIPs: [10.96.3.5]", "spec: clusterIPs[0] must be the same as clusterIP"),
        ("[IPv4]", "[IPv4, IPv6]", "spec: ipFamilyPolicy must be PreferDualStack or RequireDualStack"),
        ("externalIPs: [192.0.2.7]", "externalIPs: [web]", "spec.externalIPs[0]: must be an IP address"),
    ],
)
def test_a_mistake_in_a_service_is_named(old: str, new: str, message: str) -> None:
    assert old in FULL
    with pytest.raises(InvalidResource) as error:
        service(FULL.replace(old, new))
    assert message in str(error.value)


def test_the_reference_s_pool_is_read() -> None:
    (found,) = parse_manifests(METALLB)
    assert isinstance(found, ConfigMap)
    config = found.metallb()
    assert config is not None
    assert config.address_pools[0].addresses == ("172.18.255.200-172.18.255.250",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("200-172.18.255.250", "200-172.18.255.100", "data.config: address-pools[0].addresses: must be FIRST-LAST"),
        ("layer2", "layer3", "data.config: address-pools[0].protocol: must be"),
        ("- name: default", "- nam: default", "data.config: address-pools[0].name: field required"),
        ("address-pools:", "address-pools: {", "data.config: not valid YAML"),
    ],
)
def test_a_mistake_in_metallb_s_pools_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidResource) as error:
        parse_manifests(METALLB.replace(old, new))
    assert message in str(error.value)


def test_other_config_maps_are_kept_as_they_are() -> None:
    (found,) = parse_manifests("{apiVersion: v1, kind: ConfigMap, metadata: {name: config}, data: {config: '{'}}")
    assert isinstance(found, ConfigMap)
    assert found.metallb() is None
    assert found.data == {"config": "{"}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("cidr: 172.18.255.0/40", "spec.blocks[0].cidr: must be a CIDR"),
        ("start: 172.18.255.9, stop: 172.18.255.8", "spec.blocks[0]: 172.18.255.9 comes after 172.18.255.8"),
        ("start: 172.18.255.9, stop: 'fd00::1'", "are of different families"),
        ("stop: 172.18.255.9", "spec.blocks[0]: needs either cidr or start"),
        ("cidr: 10.0.0.0/24, start: 172.18.255.9", "spec.blocks[0]: needs either cidr or start"),
    ],
)
def test_a_mistake_in_a_block_is_named(block: str, message: str) -> None:
    with pytest.raises(InvalidResource) as error:
        parse_manifests(
            "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: blue}\n"
            f"spec: {{blocks: [{{{block}}}]}}"
        )
    assert message in str(error.value)


def test_an_endpoint_slice_has_addresses_of_its_type() -> None:
    with pytest.raises(InvalidResource, match=r"endpoints\[0\]\.addresses: 'fd00::1' is not IPv4"):
        parse_manifests(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\n"
            "endpoints: [{addresses: ['fd00::1']}]"
        )
