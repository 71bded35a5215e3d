"""Kubernetes YAML in, checked resources out; mistakes are named by their path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.resources.base import Key, changed
from mesh.resources.deployments import Deployment
from mesh.resources.manifests import parse_manifest, parse_manifests
from mesh.resources.mistakes import InvalidResource
from mesh.resources.pods import Pod
from mesh.resources.selectors import LabelSelector
from mesh.resources.services import Service

# The reference article's own manifest, fields that mean nothing here included.
FOO = """
apiVersion: v1
kind: Pod
metadata:
  labels:
    run: foo-app
  name: foo-app
spec:
  containers:
  - image: hashicorp/http-echo:0.2.3
    args:
    - "-text=foo"
    name: foo-app
    ports:
    - containerPort: 5678
    resources: {}
  dnsPolicy: ClusterFirst
  restartPolicy: Always
status: {}
---
apiVersion: v1
kind: Service
metadata:
  labels:
    run: foo-app
  name: foo-app
spec:
  ports:
  - port: 5678
    protocol: TCP
    targetPort: 5678
  selector:
    run: foo-app
"""


def test_the_article_s_manifest_is_taken_as_it_is() -> None:
    pod, service = parse_manifests(FOO, "foo.yaml")
    assert isinstance(pod, Pod)
    assert isinstance(service, Service)
    assert pod.key == Key("Pod", "default", "foo-app")
    assert pod.spec.containers[0].args == ("-text=foo",)
    assert service.spec.ports[0].target_port == 5678


def test_what_was_written_comes_back_also_where_it_means_nothing_here() -> None:
    pod = parse_manifests(FOO)[0].dump()
    assert pod["spec"]["dnsPolicy"] == "ClusterFirst"
    assert pod["spec"]["containers"][0]["resources"] == {}
    assert "tolerations" not in pod["spec"]


def test_a_dumped_resource_reads_back_as_the_same_resource() -> None:
    for resource in parse_manifests(FOO):
        assert parse_manifest(resource.dump()) == resource


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("containerPort: 5678", "containerPort: 99999", "spec.containers[0].ports[0].containerPort: must be less than"),
        ("    name: foo-app\n    ports", "    ports", "spec.containers[0].name: field required"),
        ("dnsPolicy", "dnsPolici", "spec: unknown field 'dnsPolici'"),
        ("targetPort: 5678", "targetPort: 0", "spec.ports[0].targetPort: must be greater than or equal to 1, got '0'"),
        ("protocol: TCP", "protocol: ICMP", "document 2 (Service foo-app): spec.ports[0].protocol: must be 'TCP'"),
        ("  name: foo-app\nspec", "  name: Foo\nspec", "metadata.name: must be a lower case DNS name"),
        ("run: foo-app\n  name", "run: 5\n  name", "metadata.labels.run: must be a valid string, got '5'"),
        ("run: foo-app\n  name", "'a b': c\n  name", "metadata.labels.a b: must be a label name"),
        ("kind: Pod", "kind: Pud", "document 1: kind: 'Pud' is not known"),
        ("apiVersion: v1\nkind: Pod", "apiVersion: v2\nkind: Pod", "(Pod): apiVersion: must be v1 for Pod, got 'v2'"),
        ("status: {}", "status: {]", "line 19, column 10: not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_file_document_and_path(old: str, new: str, message: str) -> None:
    assert old in FOO
    with pytest.raises(InvalidResource) as error:
        parse_manifests(FOO.replace(old, new, 1), "foo.yaml")
    assert str(error.value).startswith("foo.yaml:")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_are_unfolded_and_empty_documents_skipped() -> None:
    text = "---\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
    assert [one.key for one in parse_manifests(text)] == [Key("Namespace", "", "a")]


def test_several_ports_need_names() -> None:
    with pytest.raises(InvalidResource, match="ports need names"):
        parse_manifests(FOO.replace("  - port: 5678", "  - port: 1\n  - port: 5678"))


def test_a_deployment_must_select_its_own_pods() -> None:
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web, image: x}]}
"""
    with pytest.raises(InvalidResource, match=r"spec\.selector does not match"):
        parse_manifests(text)
    assert isinstance(parse_manifests(text.replace("other", "web"))[0], Deployment)


def test_a_service_is_reachable_by_the_families_it_asks_for() -> None:
    def families(spec: str) -> tuple[int, ...]:
        text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}"
        (service,) = parse_manifests(text)
        assert isinstance(service, Service)
        return service.families

    assert families("") == (4,)
    assert families("ipFamilies: [IPv6]") == (6,)
    assert families("ipFamilyPolicy: PreferDualStack") == (4, 6)
    assert families("ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]") == (6, 4)


def test_set_based_selectors_compare_as_kubernetes_does() -> None:
    def matches(operator: str, values: list[str], labels: dict[str, str]) -> bool:
        term = {"key": "tier", "operator": operator, "values": values}
        return LabelSelector.model_validate({"matchExpressions": [term]}).matches(labels)

    assert matches("In", ["a", "b"], {"tier": "b"})
    assert not matches("In", ["a"], {})
    assert matches("NotIn", ["a"], {})
    assert not matches("NotIn", ["a"], {"tier": "a"})
    assert matches("Exists", [], {"tier": ""})
    assert matches("DoesNotExist", [], {"app": "x"})
    assert LabelSelector().matches({})


def test_changed_fields_are_written_out() -> None:
    pod = parse_manifests(FOO)[0]
    assert isinstance(pod, Pod)
    assert changed(pod, spec=changed(pod.spec, node_name="kind-worker")).dump()["spec"]["nodeName"] == "kind-worker"


FIELDS = st.sampled_from(["kind", "apiVersion", "metadata", "spec", "name", "containers", "ports"])


def refusal(parse: Callable[[], object]) -> str:
    """What `parse` is refused with; empty when it succeeds. Any other exception fails the test."""
    try:
        parse()
    except InvalidResource as error:
        return str(error)
    return ""


@settings(max_examples=200)
@given(st.text(max_size=300))
def test_any_text_is_either_resources_or_one_clear_line(text: str) -> None:
    assert "\n" not in refusal(lambda: parse_manifests(text))


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner),
        max_leaves=12,
    )
)
def test_any_data_is_either_a_resource_or_one_clear_line(data: object) -> None:
    base = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": data}}
    for manifest in (data, base, {**base, "spec": data}, {**base, "metadata": data}):
        assert "\n" not in refusal(partial(parse_manifest, manifest))
