"""From a packet to the screen: real traffic of the lab in map, table, panel, reasons and health."""

from __future__ import annotations

import csv
import io
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.conftest import ROOT, Lab
from tests.support.browser import chromium
from tests.support.page import WAIT_S, Looker

pytestmark = [pytest.mark.kernel, pytest.mark.browser]

LAB_MANIFESTS = ROOT / "lab" / "manifests"
L7_POLICIES = ("client-egress-only-dns.yaml", "client-egress-l7-http.yaml")
REFUSE_ALL = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: page-refuses-all, namespace: cilium-test}
spec:
  podSelector: {matchLabels: {name: echo-same-node}}
  policyTypes: [Ingress]
"""

NEWCOMER = """
apiVersion: v1
kind: Pod
metadata: {name: newcomer, namespace: cilium-test, labels: {run: newcomer}}
spec: {containers: [{name: curl, image: curlimages/curl}]}
"""


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Looker]:
    with chromium() as driver:
        looker = Looker(driver, f"http://{lab.ui}/")
        assert request(lab, "echo-same-node")
        looker.open()
        yield looker


def eventually(page: Looker, true: Callable[[], Any]) -> Any:
    return WebDriverWait(page.driver, WAIT_S, poll_frequency=0.2).until(lambda _: true())


def table(page: Looker) -> list[list[str]]:
    """Cells of the rows that are on the screen, newest first, read in one go."""
    rows: list[list[str]] = page.js(
        "[...document.querySelectorAll('flow-table .row')].sort((a, b) => a.dataset.index - b.dataset.index)"
        ".map((row) => [...row.children].map((cell) => cell.textContent.trim()))"
    )
    return rows


def request(lab: Lab, server: str, client: str = "client2", timeout_s: int = 5) -> bool:
    """Whether a server answers a pod."""
    return lab.exec(client, "curl", "-s", "-o", "/dev/null", "-m", str(timeout_s), f"{server}:8080/").returncode == 0


def code(lab: Lab, address: str) -> str:
    """What client2's request is answered with; 000: not at all."""
    words = ("curl", "-s", "-o", "/dev/null", "-m", "3", "-w", "%{http_code}", address)
    return lab.exec("client2", *words).stdout.strip()


@contextmanager
def policy(lab: Lab, text: str) -> Iterator[None]:
    """As long as the body runs."""
    store = str(lab.run_dir / "store")
    applied = lab.flowscope("mesh", "apply", "--store", store, "-f", "-", input=text)
    assert applied.returncode == 0, applied.stderr
    try:
        yield
    finally:
        lab.flowscope("mesh", "delete", "--store", store, "-f", "-", input=text)


def test_a_request_s_flows_appear_in_the_table(lab: Lab, page: Looker) -> None:
    assert request(lab, "echo-same-node")

    def summaries() -> set[str]:
        return {
            row[5]
            for row in table(page)
            if len(row) == 6 and "cilium-test/client2-" in row[2] and "cilium-test/echo-same-node-" in row[3]
        }

    wanted = {"TCP Flags: SYN", "TCP Flags: ACK", "TCP Flags: ACK, PSH", "TCP Flags: ACK, FIN"}
    eventually(page, lambda: wanted <= summaries())


def test_the_map_has_an_arrow_from_the_client_to_the_server(lab: Lab, page: Looker) -> None:
    assert request(lab, "echo-other-node")
    edge = "[data-edge='cilium-test/client2>cilium-test/echo-other-node']"
    page.until(f'document.querySelector("{edge}")')
    # With the parser's name once requests were seen, which depends on who was here before.
    assert page.text(f"{edge} text").startswith(("8080 TCP", "8080 HTTP"))
    page.event(f"{edge} .hit", "pointerover")
    page.until("document.querySelectorAll('.spark rect').length > 0")
    page.event(f"{edge} .hit", "click")
    page.until("document.querySelector('detail-panel h2').textContent === 'client2 → echo-other-node'")
    page.click("detail-panel .close")


def test_the_verdict_filter_hides_what_was_forwarded(lab: Lab, page: Looker) -> None:
    page.click("filter-box [data-verdict=DROPPED]")
    eventually(page, lambda: not any("FORWARDED" in cell for row in table(page) for cell in row))
    assert "verdict+DROPPED" in page.driver.current_url
    page.click("filter-box [data-verdict=DROPPED]")
    assert request(lab, "echo-same-node")
    eventually(page, lambda: any("FORWARDED" in cell for row in table(page) for cell in row))


def test_the_life_of_a_connection_goes_over_both_nodes_from_syn_to_fin(lab: Lab, page: Looker) -> None:
    page.open("?filter=--to-pod+cilium-test/echo-other-node+--tcp-flags+SYN")
    assert request(lab, "echo-other-node")
    page.until("document.querySelectorAll('flow-table .row').length > 1")
    page.click("flow-table .row")
    page.until("document.querySelectorAll('.sequence li').length > 8")
    life = page.text(".sequence")
    nodes = set(page.js("[...document.querySelectorAll('.sequence .node')].map((one) => one.textContent.trim())"))
    assert len(nodes) == 2, nodes
    assert "SYN" in life
    assert "FIN" in life
    assert page.js("document.querySelectorAll('.sequence .back').length") > 0
    page.click("detail-panel .close")


def way(page: Looker) -> list[str]:
    """Stations of the connection that the panel shows."""
    return page.js("[...document.querySelectorAll('.stations li')].map((one) => one.textContent)") or []


def life_of(page: Looker, words: str, true: Callable[[list[str]], bool]) -> list[str]:
    """Choose a flow that a filter finds, until the panel tells of its connection what `true` asks for.

    Flows of two nodes and of the proxy arrive one after the other, and a story that is told stays as it is.
    """
    page.open(f"?filter={quote(words)}")

    def told() -> list[str] | None:
        page.click("detail-panel .close")  # what is chosen again is asked for again
        page.click("flow-table .row:not(.gap)")
        page.until("document.querySelectorAll('.sequence li').length")
        stations = way(page)
        return stations if true(stations) and "FIN" in page.text(".sequence") else None

    found: list[str] = eventually(page, told)
    return found


def test_a_life_goes_through_services_to_their_pods(lab: Lab, page: Looker) -> None:
    assert request(lab, "echo-other-node")
    first, service, last = life_of(
        page,
        "--from-pod cilium-test/client2 --to-pod cilium-test/echo-other-node --tcp-flags SYN",
        lambda way: len(way) == 3,
    )
    assert first.startswith("cilium-test/client2-")
    assert service.startswith("service 10.96.")
    assert service.endswith(":8080")
    assert last.startswith("cilium-test/echo-other-node-")


def test_a_life_goes_from_outside_over_a_node_to_a_pod_on_another(lab: Lab, page: Looker) -> None:
    address = next(node["ips"][0] for node in lab.status()["nodes"] if node["name"] == lab.node("worker3"))
    answer = lab.lab("exec", "--outside", "--", "curl", "-s", "-o", "/dev/null", "-m", "5", f"{address}:32133/")
    assert answer.returncode == 0, answer.stderr
    first, port, node, last = life_of(
        page, f"--from-ip {address} --to-pod cilium-test/echo-same-node", lambda way: len(way) == 4
    )
    assert (first.count(":"), port) == (1, f"port of a node {address}:32133")
    assert node.startswith(f"{lab.node('worker3')} translates it, and goes on as {address}:")
    assert last.startswith("cilium-test/echo-same-node-")
    nodes = set(page.js("[...document.querySelectorAll('.sequence .node span')].map((one) => one.textContent)"))
    assert nodes == {lab.node("worker"), lab.node("worker3")}


def test_a_drop_is_explained_and_the_rule_that_the_page_offers_lets_it_through(lab: Lab, page: Looker) -> None:
    assert request(lab, "echo-same-node")
    with policy(lab, REFUSE_ALL):
        eventually(page, lambda: not request(lab, "echo-same-node", timeout_s=1))
        page.open("?filter=--verdict+DROPPED+--to-pod+cilium-test/echo-same-node")
        page.until("document.querySelector('[data-edge=\"cilium-test/client2>cilium-test/echo-same-node\"]')")
        page.click("#pause")
        page.click("flow-table .row")
        page.until("document.querySelector('detail-panel .why pre')")
        why = page.text("detail-panel .why")
        assert "Policy denied" in why
        assert "No rule allows it" in why
        assert "last worked" in why
        with policy(lab, page.text("detail-panel .why pre")):
            eventually(page, lambda: request(lab, "echo-same-node", timeout_s=1))
        page.open("?view=findings")
        page.until("document.querySelector('findings-list').textContent.includes('Dropped: Policy denied')")
        page.open("?view=health")


def test_requests_and_names_of_real_proxies_have_their_views(lab: Lab, page: Looker) -> None:
    manifests = "\n---\n".join((LAB_MANIFESTS / name).read_text() for name in L7_POLICIES)
    with policy(lab, manifests):
        eventually(page, lambda: code(lab, "echo-other-node:8080/private") == "403")
        assert code(lab, "echo-other-node:8080/") == "200"
        stations = life_of(
            page,
            "--type l7 --protocol http --to-pod cilium-test/echo-other-node --verdict FORWARDED",
            lambda way: len(way) == 4 and "goes on as" in way[2],
        )
        assert stations[2].startswith(f"proxy of {lab.node('worker')}, which goes on as cilium-test/client2-")
        assert page.js("document.querySelectorAll('.sequence [data-leg=\"1\"]').length") > 8
        assert code(lab, "nowhere.example:8080/") == "000"
        page.open("?view=l7")
        page.until("document.querySelectorAll('requests-view .routes tbody tr').length >= 2")
        routes = page.js("[...document.querySelectorAll('.routes tbody tr')].map((row) => row.innerText)")
        assert any("echo-other-node" in route and "/private" in route and "denied" in route for route in routes)
        assert any("200 ×" in route and "ms" in route for route in routes)
        page.until("document.querySelector('requests-view .failing').textContent.includes('/private')")
        page.click("requests-view .failing button")
        page.until("document.querySelector('detail-panel .why')?.textContent.includes('Request denied')")
        with policy(lab, page.text("detail-panel .why pre")):
            eventually(page, lambda: code(lab, "echo-other-node:8080/private") == "200")
        eventually(page, lambda: code(lab, "echo-other-node:8080/private") == "403")
        page.open("?view=dns")
        page.until("document.querySelector('dns-view').textContent.includes('nowhere.example')")
        names = page.text("dns-view tbody")
        assert "echo-other-node.cilium-test.svc.cluster.local" in names
        assert "client2" in names
        assert "NXDOMAIN" in names
        page.open()
        arrow = "[data-edge='cilium-test/client2>cilium-test/echo-other-node']"
        page.until(f'document.querySelector("{arrow} text")?.textContent.startsWith("8080 HTTP")')
        assert "latency p50" in page.js(f'document.querySelector("{arrow}").ariaLabel')


def test_a_new_workload_moves_none_of_those_that_stand(lab: Lab, page: Looker) -> None:
    page.open()
    time.sleep(7)  # so long a layout may still be made anew (SETTLE_MS of service-map.js)
    assert request(lab, "echo-same-node")
    before = page.places()
    assert "cilium-test/newcomer" not in before
    assert lab.lab("apply", "-f", "-", input=NEWCOMER).returncode == 0
    assert request(lab, "echo-same-node", client="newcomer")
    page.until("document.querySelector(\"[data-card='cilium-test/newcomer']\")")
    after = page.places()
    assert {name: after[name] for name in before if name in after} == {
        name: place for name, place in before.items() if name in after
    }
    store = str(lab.run_dir / "store")
    assert lab.flowscope("mesh", "delete", "--store", store, "-n", "cilium-test", "pod", "newcomer").returncode == 0


def test_the_command_and_the_export_give_the_same_flows_as_the_table(lab: Lab, page: Looker) -> None:
    words = "--from-pod cilium-test/client2 --to-port 8080 --protocol tcp"
    assert request(lab, "echo-same-node")
    page.open(f"?filter={quote(words)}")
    copied = page.driver.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.writeText = async (text) => done(text);"
        "document.querySelector('#command').click()"
    )
    program, verb, *flags = shlex.split(copied)
    assert (program, verb, flags[-1]) == ("flowscope", "observe", "--follow")
    # Flows of requests that have just ended may still come between the two questions.
    for _ in range(20):
        printed = lab.flowscope("observe", "--server", lab.relay, *flags[:-1], "--all", "-o", "json")
        answer = urlopen(f"http://{lab.ui}/api/export?format=csv&filter={quote(words)}").read().decode()
        exported = list(csv.DictReader(io.StringIO(answer)))
        if len(exported) == len(printed.stdout.splitlines()):
            break
    assert len(exported) == len(printed.stdout.splitlines()) > 2
    assert {row["destination_port"] for row in exported} == {"8080"}


def test_health_tells_what_observation_costs_in_processes_and_in_the_kernel(lab: Lab, page: Looker) -> None:
    page.open("?view=health")
    page.until("document.querySelectorAll('health-view .costs tbody tr').length === 6")
    page.until(
        "/Observing takes [\\d.]+% of one CPU and \\d+ MiB now/.test(document.querySelector('health-view').textContent)"
    )
    for _ in range(3):
        assert request(lab, "echo-other-node")
    page.until("/from_container [\\d,]+ ns/.test(document.querySelector('health-view .costs').textContent)")
    page.until(
        "/a packet (takes|took about) [\\d,]+ ns at each hook/.test(document.querySelector('health-view').textContent)"
    )


def test_the_page_says_that_all_nodes_are_seen_and_logs_no_error(page: Looker) -> None:
    page.until("document.querySelector('connection-state .text').textContent.includes('4 of 4 nodes')")
    assert page.errors() == []
