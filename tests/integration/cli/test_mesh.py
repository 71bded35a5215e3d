"""`flowscope mesh` on a real store: what is typed, what is printed, what is in the store then."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.__main__ import main
from mesh.controller import reconcile
from mesh.resources.base import Key
from mesh.resources.manifests import parse_manifest
from mesh.resources.pods import Pod
from mesh.store import SqliteStore, Update

FOO = """
apiVersion: v1
kind: Pod
metadata: {name: foo-app, labels: {run: foo-app}, creationTimestamp: null}
spec: {containers: [{name: foo-app, image: hashicorp/http-echo:0.2.3}]}
---
apiVersion: v1
kind: Service
metadata: {name: foo-app}
spec: {selector: {run: foo-app}, ports: [{port: 5678}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: pause}]}
"""

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def mesh(store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Type `flowscope mesh WORDS`: exit code, standard output, standard error."""
    monkeypatch.setenv("FLOWSCOPE_STORE", str(store))

    def typed(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = main(["mesh", *words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return typed


def test_what_is_applied_is_created_then_unchanged_then_configured_then_deleted(mesh: Typed, tmp_path: Path) -> None:
    file = tmp_path / "foo.yaml"
    file.write_text(FOO)
    names = ["pod/foo-app", "service/foo-app", "deployment.apps/web"]
    assert mesh("apply", "-f", str(file), "--dry-run")[1] == "".join(f"{name} created (dry run)\n" for name in names)
    assert mesh("apply", "-f", str(file)) == (0, "".join(f"{name} created\n" for name in names), "")
    assert mesh("apply", "-f", str(tmp_path))[1] == "".join(f"{name} unchanged\n" for name in names)
    changed = FOO.replace("5678", "80")
    assert "service/foo-app configured\n" in mesh("apply", "-f", "-", stdin=changed)[1]
    assert mesh("delete", "-f", str(file))[1] == "".join(f"{name} deleted\n" for name in names)
    code, _, complaint = mesh("delete", "-f", str(file))
    assert code == 1
    assert complaint.splitlines()[0] == "flowscope: there is no Pod default/foo-app"
    assert mesh("delete", "-f", str(file), "--ignore-not-found")[0] == 0


def test_every_mistake_is_named_and_nothing_changes(mesh: Typed, tmp_path: Path, store: Path) -> None:
    good, bad, broken = (tmp_path / name for name in ("good.yaml", "bad.yaml", "broken.yaml"))
    good.write_text(FOO)
    bad.write_text(
        FOO.replace("port: 5678", "port: 70000")
        + "---\n{apiVersion: v1, kind: Pot, metadata: {name: a}}\n---\n"
        + "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}\n---\n"
        + "{apiVersion: v1, kind: Service, metadata: {name: B}, spec: {portz: []}}\n"
    )
    broken.write_text("a: [")
    files = [word for file in (good, bad, broken, tmp_path / "missing.yaml") for word in ("-f", str(file))]
    code, said, complaint = mesh("apply", *files)
    assert (code, said) == (1, "")
    lines = [line.replace(f"{tmp_path}/", "").strip() for line in complaint.splitlines()]
    assert lines[0] == "flowscope: nothing was changed: 7 problems"
    expected = [
        "bad.yaml: document 2 (Service foo-app): spec.ports[0].port: ",
        "bad.yaml: document 4: kind: 'Pot' is not known; did you mean Pod?",
        "bad.yaml: document 6 (Service B): metadata.name: must be a lower case DNS name",
        "bad.yaml: document 6 (Service B): spec: unknown field 'portz'",
        "broken.yaml: line 2, column 1: not valid YAML",
        "missing.yaml: No such file or directory",
        "bad.yaml: document 5 (ConfigMap nowhere/a): metadata.namespace: there is no namespace 'nowhere'",
    ]
    for line, begin in zip(lines[1:], expected, strict=True):
        assert line.removeprefix("cannot read ").startswith(begin)
    assert not SqliteStore(store).find()


def test_a_document_of_another_namespace_is_refused_with_n(mesh: Typed) -> None:
    text = "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: kube-system}, spec: {ports: [{port: 1}]}}"
    code, _, complaint = mesh("apply", "-n", "default", "-f", "-", stdin=text)
    assert code == 1
    assert "metadata.namespace: is 'kube-system', but --namespace says 'default'" in complaint


def test_what_selects_nothing_is_a_warning(mesh: Typed) -> None:
    policy = """
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: nobody}
spec: {endpointSelector: {matchLabels: {run: NAME}}, ingress: [{}]}
"""
    code, said, complaint = mesh("apply", "-f", "-", stdin=FOO + policy.replace("NAME", "foo-app"))
    assert (code, complaint) == (0, ""), "pods that come with it count, and those of deployments"
    assert "ciliumnetworkpolicy.cilium.io/nobody created\n" in said
    wrong = FOO.replace("selector: {run: foo-app}", "selector: {run: fo}") + policy.replace("NAME", "fo")
    code, _, complaint = mesh("apply", "-f", "-", stdin=wrong)
    assert code == 0
    assert complaint.splitlines() == [
        "Warning: -: document 4: CiliumNetworkPolicy default/nobody: rule 1 selects no pod",
        "Warning: -: document 2: Service default/foo-app: spec.selector selects no pod",
    ]


def test_pools_that_overlap_and_balancers_without_an_address_are_warnings(mesh: Typed) -> None:
    pool = """
apiVersion: cilium.io/v2alpha1
kind: CiliumLoadBalancerIPPool
metadata: {name: NAME}
spec: {blocks: [{cidr: CIDR}]}
"""
    pools = pool.replace("NAME", "one").replace("CIDR", "192.0.2.1/32")
    pools += "---\n" + pool.replace("NAME", "two").replace("CIDR", "192.0.2.0/28")
    code, _, complaint = mesh("apply", "-f", "-", stdin=pools)
    assert code == 0
    assert complaint == (
        "Warning: -: document 2: CiliumLoadBalancerIPPool two: gives out no address: "
        "range '192.0.2.0 - 192.0.2.15' overlaps range '192.0.2.1 - 192.0.2.1' of pool one\n"
    )
    service = "{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {type: LoadBalancer, ports: [{port: 80}]}}"
    services = service.replace("NAME", "first") + "\n---\n" + service.replace("NAME", "second")
    code, _, complaint = mesh("apply", "-f", "-", stdin=services)
    assert code == 0
    reason = "gets no load balancer address: no IPv4 address is free in one"
    assert complaint == f"Warning: -: document 2: Service default/second: {reason}\n"


def test_host_policies_are_taken_and_groups_of_clouds_refused(mesh: Typed) -> None:
    policy = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: NAME}, spec: SPEC}"
    for name, spec in {
        "hosts": "{nodeSelector: {}, ingress: [{}]}",
        "to-hosts": "{endpointSelector: {}, egress: [{toNodes: [{}]}]}",
    }.items():
        text = policy.replace("NAME", name).replace("SPEC", spec)
        assert mesh("apply", "-f", "-", stdin=text)[:2] == (
            0,
            f"ciliumclusterwidenetworkpolicy.cilium.io/{name} created\n",
        )
    groups = policy.replace("NAME", "groups").replace(
        "SPEC", "{endpointSelector: {}, egress: [{toGroups: [{aws: {}}]}]}"
    )
    code, said, complaint = mesh("apply", "-f", "-", stdin=groups)
    assert (code, said) == (1, "")
    assert "toGroups" in complaint
    assert "CiliumCIDRGroup" in complaint


def test_a_name_is_deleted_and_with_a_namespace_all_that_is_in_it(mesh: Typed, store: Path) -> None:
    space = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---"
    inside = FOO.replace("metadata: {name: foo-app", "metadata: {namespace: shop, name: foo-app")
    assert mesh("apply", "-f", "-", stdin=space + inside)[0] == 0
    assert mesh("delete", "svc", "foo-app", "-n", "shop")[1] == "service/foo-app deleted\n"
    assert mesh("delete", "ns/shop")[1] == "namespace/shop deleted\n"
    assert [one.key for one in SqliteStore(store).find()] == [Key("Deployment", "default", "web")]
    assert mesh("delete", "deploy", "-l", "app=web")[1] == ""
    assert mesh("delete", "deploy", "--all")[1] == "deployment.apps/web deleted\n"
    mesh("apply", "-f", "-", stdin="{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
    for words, complaint in {
        ("ns", "default"): "namespace default cannot be deleted",
        ("pods",): "name pods, choose some with -l SELECTOR, or all with --all",
        ("rs", "web-1"): "replicasets follow from other resources",
        (): "name a kind of resource",
    }.items():
        code, _, said = mesh("delete", *words)
        assert code == 1
        assert complaint in said


def test_get_shows_what_was_applied_as_yaml_that_can_be_applied(mesh: Typed) -> None:
    mesh("apply", "-f", "-", stdin=FOO)
    assert mesh("get", "pods") == (
        0,
        "NAME      READY   STATUS    RESTARTS   AGE\nfoo-app   0/1     Pending   0          0s\n",
        "",
    )
    _, text, _ = mesh("get", "pod,svc,deploy", "-o", "yaml")
    assert mesh("apply", "-f", "-", stdin=text)[1].split()[1::2] == ["unchanged"] * 3
    assert mesh("get", "netpol") == (0, "", "No resources found in default namespace.\n")
    assert mesh("get", "pod", "nix")[2] == "flowscope: there is no Pod 'nix' in namespace default\n"
    assert mesh("get", "po", "-o", "xml")[2] == "flowscope: --output is one of wide, yaml, json, name, got 'xml'\n"


def test_describe_tells_who_stands_behind_a_service_and_what_selects_a_pod(mesh: Typed, store: Path) -> None:
    node = """
---
{apiVersion: v1, kind: Node, metadata: {name: one}, spec: {podCIDRs: [10.244.0.0/24]}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: all}
spec: {endpointSelector: {}, ingress: [{}]}
"""
    mesh("apply", "-f", "-", stdin=FOO + node)
    opened = SqliteStore(store)
    while opened.update(reconcile):
        pass
    pod = next(one for one in opened.find("Pod") if one.name == "foo-app").dump()
    pod["status"] |= {"ready": True, "phase": "Running"}
    opened.update(lambda _: Update(put=(parse_manifest(pod),)))
    opened.close()
    _, described, _ = mesh("describe", "svc", "foo-app")
    assert f"Endpoints:\n  {pod['status']['podIP']}:5678 (5678/TCP)\n" in described
    assert mesh("get", "ep")[1].splitlines()[1].split()[:2] == ["foo-app", f"{pod['status']['podIP']}:5678"]
    _, described, _ = mesh("describe", "po/foo-app")
    assert "Policies:\n  CiliumNetworkPolicy default/all\n" in described
    assert "Services:\n  foo-app\n" in described
    assert "Selects:\n  default/foo-app\n" in mesh("describe", "cnp", "all")[1]


def test_describe_tells_why_an_ingress_has_no_address_and_which_backend_is_missing(mesh: Typed) -> None:
    ingress = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: CLASS
  rules:
  - http: {paths: [{path: /foo, pathType: Prefix, backend: {service: {name: foo-app, port: {number: 5678}}}}]}
  - host: a.example
    http: {paths: [{path: /bar, pathType: Exact, backend: {service: {name: bar-app, port: {name: web}}}}]}
"""
    assert mesh("apply", "-f", "-", stdin=FOO + "---" + ingress.replace("CLASS", "nginx"))[0] == 0
    _, described, _ = mesh("describe", "ing", "shop")
    assert "Class:         nginx\nAddress:       <pending> (no controller here serves its class)\n" in described
    assert "Rules:\n  *  /foo (Prefix)  foo-app:5678\n" in described
    assert "  a.example  /bar (Exact)  bar-app:web (there is no Service default/bar-app)\n" in described


def test_a_store_that_is_not_there_is_told_with_the_remedy(mesh: Typed, store: Path) -> None:
    code, _, complaint = mesh("get", "pods")
    assert (code, complaint) == (1, f"flowscope: there is no resource store in {store}; see --store\n")
    assert mesh("status")[0] == 1


def test_a_locked_store_is_told(mesh: Typed, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.store.BUSY_S", 0.05)
    mesh("apply", "-f", "-", stdin=FOO)
    with sqlite3.connect(store / "resources.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        code, _, complaint = mesh("delete", "deploy", "web")
        other.execute("ROLLBACK")
    assert code == 1
    assert "resource store: database is locked; another process" in complaint


RUNNING = """
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: pause}]}
status: {phase: Running, network: {interface: lxc1, mac: "02:00:00:00:00:01", hostMac: "02:00:00:00:00:02"}}
"""


def test_delete_waits_until_whoever_runs_the_pod_has_ended_it(mesh: Typed, store: Path) -> None:
    assert mesh("apply", "-f", "-", stdin=RUNNING)[0] == 0
    key = Key("Pod", "default", "busy")
    code, said, complaint = mesh("delete", "pod", "busy", "--timeout", "10ms")
    assert (code, said) == (1, "pod/busy deleted\n")
    assert complaint.startswith("flowscope: Pod default/busy: not gone after 0.01 s; ")
    assert mesh("delete", "pod", "busy", "--wait=false") == (0, "pod/busy deleted\n", "")
    opened = SqliteStore(store)
    try:
        found = opened.get(key)
        assert isinstance(found, Pod)
        assert found.is_leaving
        # Whoever runs pods, in a thread: it ends the pod once the command waits for it, or before.
        ending = threading.Timer(0.1, lambda: end(store, key))
        ending.start()
        assert mesh("delete", "pod", "busy", "--timeout", "60s")[0] == 0
        assert opened.get(key) is None
        ending.join()
    finally:
        opened.close()


def end(store: Path, key: Key) -> None:
    opened = SqliteStore(store)
    opened.delete([key], at_once=True)
    opened.close()


def test_watching_shows_changes_as_they_happen(store: Path) -> None:
    opened = SqliteStore(store)
    opened.apply([parse_manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "first"}})])
    words = [sys.executable, "-m", "cli", "mesh", "get", "ns", "-w", "--store", str(store)]
    watching = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout
        assert watching.stdout.readline().split() == ["NAME", "STATUS", "AGE"]
        assert watching.stdout.readline().split()[0] == "first"
        opened.apply([parse_manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "second"}})])
        assert watching.stdout.readline().split()[0] == "second"
    finally:
        watching.terminate()
        watching.wait(10)
        opened.close()


def test_api_resources_lists_kinds_as_kubectl_does(mesh: Typed) -> None:
    lines = mesh("api-resources")[1].splitlines()
    assert lines[0].split() == ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    rows = {line.split()[-1]: line.split()[:-1] for line in lines[1:]}
    assert rows["CiliumNetworkPolicy"] == ["ciliumnetworkpolicies", "cnp,ciliumnp", "cilium.io/v2", "true"]
    assert rows["CiliumClusterwideNetworkPolicy"] == [
        "ciliumclusterwidenetworkpolicies",
        "ccnp",
        "cilium.io/v2",
        "false",
    ]
    assert rows["CiliumEndpoint"] == ["ciliumendpoints", "cep,ciliumep", "cilium.io/v2", "true"]


APPLIED = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
"""


def test_applying_imports_what_its_manifests_need(tmp_path: Path) -> None:
    (tmp_path / "ingress.yaml").write_text(APPLIED)
    code = (
        "import sys; from cli.__main__ import main; main(sys.argv[1:]);"
        "heavy = {'google.protobuf', 'mesh.controller', 'mesh.gateway.documents',"
        " 'mesh.policy.documents.cilium'} & set(sys.modules); sys.exit(' '.join(heavy) or 0)"
    )
    words = ["mesh", "apply", "--store", str(tmp_path / "store"), "-f", str(tmp_path / "ingress.yaml")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("ingress.networking.k8s.io/web created\n", "", 0)
