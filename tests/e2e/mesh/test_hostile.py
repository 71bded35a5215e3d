"""Hostile text in paths, hosts, headers and DNS names, sent for real: no output obeys it, and none loses it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import ROOT, Lab, command
from tests.support.browser import chromium
from tests.support.page import Looker
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

CLIENT = ROOT / "tests/support/hostile_client.py"
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: hostile-text
  namespace: cilium-test
  annotations: {note: "\\e[31m\\x9b31m\\u202e<script>"}
spec:
  endpointSelector: {matchLabels: {name: client2}}
  egress:
  - toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
  - toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [{}]}}]
"""
URLS = {
    "http://h/%1b[31mred%00%07%0d%0a",
    "http://h/%e2%80%ae%c2%9b31m",
    "http://h/\"'\\<script>window.pwned=1</script>",
    "http://h/'><img/src=x/onerror=window.pwned=1>",
    "http://h/=cmd|calc,;`$(id)",
    f"http://h/{'x' * 2047}",
    "http://a'b%1b[31m/host",
    "http://user:HUBBLE_REDACTED@h/host",
    f"http://{'y' * 256}/host",
    "http://h/agent",
    "http://h/ids",
    "http://h/two\x9b31m",
    "http://h/two\u202ebidi",
    "http://h/two\ufffd\ufffd",
    "http://h/two<script>window.pwned=1</script>",
}
"""Of requests that Envoy passes on."""
NAMES = {
    "a\\.b.c.",
    "a\\\\b.",
    "\\027[31mred.",
    "\\255\\254.",
    "\\194\\15531m.",
    "\\226\\128\\174.",
    "<script>window\\.pwned=1</script>.",
    "q\\034q.",
    "nul\\000line\\010.",
    ".".join(["l" * 63] * 3) + ".",
}
"""As DNS itself writes them (RFC 4343, section 2.1)."""
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that a terminal does not just show."""
STATUSES = ["HTTP/1.1 404 Not Found"] * 13 + ["HTTP/1.1 400 Bad Request"] * 5 + ["HTTP/2 answer"] * 4 + ["DNS 3"] * 10

Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def ask(lab: Lab) -> Iterator[Ask]:
    """Runs `observe` about what the client has sent; everything is told by then."""
    store = ("--store", str(lab.run_dir / "store"))
    applied = lab.flowscope("mesh", "apply", *store, "--wait", "-f", "-", input=POLICY)
    assert applied.returncode == 0, applied.stderr
    try:
        since = datetime.now(UTC).isoformat()
        sent = lab.exec("client2", sys.executable, str(CLIENT), "echo-same-node")
        assert sent.stdout.splitlines() == STATUSES, sent.stderr

        def found(*words: str) -> bytes:
            chosen = ("--server", lab.relay, "--since", since, "--pod", "cilium-test/client2", "--type", "l7")
            done = subprocess.run(command("observe", *chosen, *words), capture_output=True, cwd=ROOT, check=False)
            assert (done.returncode, done.stderr) == (0, b"")
            return done.stdout

        def everything() -> bool:
            requests = [flow for flow in flows(found) if flow["l7"]["type"] == "REQUEST"]
            return {url(one) for one in requests} >= URLS and {name(one) for one in requests} >= NAMES

        eventually(everything, timeout_s=60)
        yield found
    finally:
        lab.flowscope("mesh", "delete", *store, "-f", "-", input=POLICY)


def flows(found: Ask, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line)["flow"] for line in found("-o", "jsonpb", *words).splitlines()]


def url(flow: dict[str, Any]) -> str:
    return str(flow["l7"].get("http", {}).get("url", ""))


def name(flow: dict[str, Any]) -> str:
    return str(flow["l7"].get("dns", {}).get("query", ""))


def obeyed(text: str) -> set[str]:
    return {char for char in text if char != "\n" and unicodedata.category(char) in OBEYED}


@pytest.mark.parametrize(
    "words",
    [
        ("-o", "compact"),
        ("-o", "dict"),
        ("-o", "table"),
        ("-o", "json"),
        ("-o", "jsonpb"),
        ("--group-by", "http_url,dns_query,summary", "--top", "0"),
        ("--group-by", "http_url,dns_query,summary", "--top", "0", "-o", "json"),
    ],
)
def test_text_for_people_controls_no_terminal(ask: Ask, words: tuple[str, ...]) -> None:
    shown = ask(*words).decode()
    assert obeyed(shown) == set()
    assert all(part in shown for part in ("/two\\u009b31m", "/two\\u202ebidi", "pwned=1", "%1b[31m"))


def test_what_else_is_printed_controls_no_terminal(lab: Lab, ask: Ask) -> None:
    store = ("--store", str(lab.run_dir / "store"))
    for words in (("status", "--verbose"), ("status",), ("describe", "cnp", "-A"), ("describe", "pod", "-A")):
        shown = lab.flowscope("mesh", words[0], *store, *words[1:]).stdout
        assert len(shown) > 100
        assert obeyed(shown) == set(), words
    logs = list(lab.run_dir.rglob("*.log"))
    assert logs
    for log in logs:
        assert obeyed(log.read_text("utf-8")) == set(), log


def test_programs_get_the_values_as_they_are(ask: Ask) -> None:
    asked = [flow for flow in flows(ask) if flow["l7"]["type"] == "REQUEST"]
    assert {one for flow in asked if (one := url(flow))} == URLS
    assert {one for flow in asked if (one := name(flow))} >= NAMES
    arrow = pa.ipc.open_stream(ask("-o", "arrow")).read_all()
    parquet = pq.read_table(io.BytesIO(ask("-o", "parquet")))
    rows = list(csv.DictReader(io.StringIO(ask("-o", "csv").decode(), newline="")))
    for column, wanted in (("http_url", URLS), ("dns_query", NAMES)):
        for values in (
            arrow.column(column).to_pylist(),
            parquet.column(column).to_pylist(),
            [row[column] for row in rows],
        ):
            assert {one for one in values if one} >= wanted


def test_headers_come_as_they_were_as_far_as_they_are_text(ask: Ask) -> None:
    headers = [
        (one["key"], one["value"])
        for flow in flows(ask, "--http-path", "^/(agent|ids)$")
        for one in flow["l7"]["http"]["headers"]
    ]
    assert {value for key, value in headers if key == "User-Agent"} >= {
        "<script>window.pwned=1</script>",
        "\x9b31m\u202ebidi\u2028line",
        # Of what controls, HTTP lets only tabs through; a record has a blank for each.
        '\ufffd\ufffd\ufffd"q",\\ tab',
    }
    assert ("X-Request-Id", "<b>\x9b31m") in headers
    assert ("Traceparent", "\ufffd\u202e") in headers


def test_filters_find_hostile_text(ask: Ask) -> None:
    assert {url(one) for one in flows(ask, "--http-path", "<script>")} == {one for one in URLS if "<script>" in one}


@pytest.mark.browser
def test_the_page_shows_it_as_text(lab: Lab, ask: Ask) -> None:
    address = f"http://{lab.ui}/"
    script, image = "<script>window.pwned=1</script>", "'><img/src=x/onerror=window.pwned=1>"
    wanted = quote("--pod cilium-test/client2 --http-path pwned")
    with urlopen(f"{address}api/flows?columns=http_url&filter={wanted}") as answer:
        assert {row[3] for row in json.load(answer)["rows"]} == {one for one in URLS if "pwned" in one}
    with chromium() as driver:
        looker = Looker(driver, address)
        for view in ("map", "findings", "l7", "dns", "health"):
            looker.open(f"?columns=time,summary,http_url,dns_query,type&view={view}&filter={wanted}")
            for text in (script, image):
                looker.until(f"document.querySelector('flow-table').textContent.includes({json.dumps(text)})")
            looker.click("flow-table .row:not(.gap)")
            looker.until("document.querySelector('detail-panel .fields')")
            looker.until("document.querySelector('detail-panel').textContent.includes('window.pwned=1')")
        looker.open(f"?group=http_url,dns_query&filter={quote('--pod cilium-test/client2 --type l7')}")
        looker.until(f"document.body.textContent.includes({json.dumps(script)})")
        assert looker.js("window.pwned") is None
        assert [error for error in looker.errors() if "Content Security" in error] == []
