"""`flowscope connectivity test` on the lab."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from connectivity.suite import TESTS
from tests.e2e.conftest import Lab

pytestmark = pytest.mark.kernel


def run(lab: Lab, *words: str) -> tuple[int, str]:
    done = lab.flowscope("connectivity", "test", "--run-dir", str(lab.run_dir), *words, timeout_s=480)
    return done.returncode, done.stdout + done.stderr


def test_policies_between_pods_are_judged_by_clients_and_by_flows(lab: Lab, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    code, said = run(lab, "--test", "^echo-ingress$", "--test", "^client-ingress$", "--junit-file", str(report))
    assert code == 0, said
    assert "[=] Test [echo-ingress]\n....\n" in said
    assert "✅ All 2 tests (6 actions) successful, " in said
    cases = ElementTree.parse(report).getroot()[0].findall("testcase")
    assert [one.get("name") for one in cases if one.find("skipped") is None] == ["client-ingress", "echo-ingress"]


REPRESENTATIVE = (
    "^no-policies-extra$",
    "^client-egress-tls-sni$",
    "^from-cidr$",
    "^ingress-from-specific-namespace$",
    "^pod-to-ingress-service$",
    "^pod-to-ingress-service-deny-backend-service$",
    "^pod-to-ingress-service-allow-ingress-identity$",
    "^outside-to-ingress-service-deny-world-identity$",
    "^no-interrupted-connections-l7$",
    "^no-unexpected-packet-drops$",
)


def test_one_of_each_kind(lab: Lab) -> None:
    code, said = run(lab, *(word for one in REPRESENTATIVE for word in ("--test", one)))
    assert code == 0, said
    assert f"✅ All {len(REPRESENTATIVE)} tests (" in said


@pytest.mark.slow
def test_the_whole_of_connectivity(lab: Lab) -> None:
    code, said = run(lab)
    print(said)
    assert code == 0, said
    assert f"✅ All {len(TESTS)} tests (" in said


def test_without_a_lab_there_is_one_line(tmp_path: Path, lab: Lab) -> None:
    done = lab.flowscope("connectivity", "test", "--run-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no lab is running" in done.stderr
