"""HTTP policy as clients meet it: YAML in, requests through the kernel and a real Envoy, records out."""

from __future__ import annotations

import socket

import pytest

from mesh.envoy.listeners import FILTERS, typed
from mesh.envoy.records import downstream_logs
from mesh.envoy.retiring import Extra
from tests.support.policynet import PolicyNet
from tests.support.proxied import ask, ask_on, ask_raw, connection, echo_server
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

P = "{matchLabels: {app: p}}"
DENIED = b"Access denied\r\n"


def policy(spec: str, name: str = "case", subject: str = "s") -> str:
    return (
        f"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: ns}}\n"
        f"spec: {{endpointSelector: {{matchLabels: {{app: {subject}}}}}, {spec}}}\n"
    )


def http(rules: str, direction: str = "egress", peer: str = P, port: int = 8080) -> str:
    side = "toEndpoints" if direction == "egress" else "fromEndpoints"
    ports = f"toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}], rules: {{http: [{rules}]}}}}]"
    return f"{direction}: [{{{side}: [{peer}], {ports}}}]"


GET_ROOT = "{method: GET, path: /}"


def told(mesh: PolicyNet, count: int, far: bool = False) -> list[tuple[str, str, str, str]]:
    """Type, verdict, observation point and URL of the records of a node."""
    node = mesh.away if far else mesh.near
    return [
        (one["type"], one["verdict"], one["observation_point"], one["http"]["url"])
        for one in mesh.envoys[node.number].records(count)
    ]


def test_case_1_a_request_that_no_rule_allows_is_answered_403_and_the_connection_stays(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    s, p = mesh["s"], mesh["p"]
    with echo_server(p.pod.netns, 8080):
        made = connection(s.pod.netns, p.ip, 8080)
        denied = ask_on(made, "DELETE", "/")
        assert (denied.status, denied.body) == (403, DENIED)
        assert (denied.headers["content-type"], denied.headers["server"]) == ("text/plain", "envoy")
        assert denied.headers["content-length"] == "15"
        assert ask_on(made, "HEAD", "/").status == 403
        allowed = ask_on(made)
        made.close()
    assert (allowed.status, allowed.echo["client"]) == (200, s.ip), "the server sees the client's own address"
    url = f"http://{p.ip}:8080/"
    assert told(mesh, 4) == [
        ("Request", "Denied", "Egress", url),
        ("Request", "Denied", "Egress", url),
        ("Request", "Forwarded", "Egress", url),
        ("Response", "Forwarded", "Egress", url),
    ]


def test_a_record_has_the_ends_and_joins_request_and_response(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    s, p = mesh["s"], mesh["p"]
    with echo_server(p.pod.netns, 8080):
        answer = ask(s.pod.netns, p.ip, 8080, User_Agent="agent")
    request, response = mesh.envoys[mesh.near.number].records(2)
    client, server = request["source_endpoint"], request["destination_endpoint"]
    assert (client["ip"], server) == (s.ip, {"ip": p.ip, "port": 8080})
    assert (response["source_endpoint"], response["destination_endpoint"]) == (server, client)
    assert (response["http"]["code"], response["http"]["protocol"]) == (200, "HTTP/1.1")
    ids = {one["http"]["headers"]["X-Request-Id"] for one in (request, response)}
    assert ids == set(answer.received("x-request-id"))
    assert request["http"]["headers"]["User-Agent"] == "agent"
    assert request["timestamp"] < response["timestamp"]


@pytest.mark.parametrize(
    ("more", "path", "status"),
    [
        ("", "/?x=1", 403),
        ("", "/foo", 403),
        (policy(f"egress: [{{toEndpoints: [{P}], toPorts: [{{ports: [{{port: '8080'}}]}}]}}]", "plain"), "/foo", 200),
        (policy(f"egress: [{{toEndpoints: [{P}]}}]", "plain"), "/foo", 200),
    ],
)
def test_cases_2_to_4_the_query_belongs_to_the_path_and_a_plain_allow_lets_all_pass(
    mesh: PolicyNet, more: str, path: str, status: int
) -> None:
    mesh.apply(policy(http(GET_ROOT)), *([more] if more else []))
    s, p = mesh["s"], mesh["p"]
    with echo_server(p.pod.netns, 8080):
        assert ask(s.pod.netns, p.ip, 8080, path=path).status == status
    verdict = "Forwarded" if status == 200 else "Denied"
    assert told(mesh, 1)[0] == ("Request", verdict, "Egress", f"http://{p.ip}:8080{path}")
    assert "to-proxy" in mesh.whats()


def test_case_16_without_default_deny_rules_hold_for_what_they_match(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"enableDefaultDeny: {{egress: false}}, {http(GET_ROOT, port=80)}"))
    s, p = mesh["s"], mesh["p"]
    with echo_server(p.pod.netns, 80), echo_server(p.pod.netns, 443):
        assert ask(s.pod.netns, p.ip, 443, path="/x").status == 200
        assert ask(s.pod.netns, p.ip, 80, path="/x").status == 403
        assert ask(s.pod.netns, p.ip, 80).status == 200


def test_case_20_audit_does_not_reach_requests(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT, "ingress", port=80)), audit=True)
    s, p = mesh["s"], mesh["p"]
    with echo_server(s.pod.netns, 22), echo_server(s.pod.netns, 80):
        assert ask(p.pod.netns, s.ip, 22, path="/x").status == 200
        assert ask(p.pod.netns, s.ip, 80, path="/x").status == 403


def test_case_35_both_sides_judge_and_both_tell(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)), policy(http(GET_ROOT, "ingress", "{matchLabels: {app: s}}"), "in", "p"))
    s, p = mesh["s"], mesh["p"]
    with echo_server(p.pod.netns, 8080):
        answer = ask(s.pod.netns, p.ip, 8080)
    assert (answer.status, answer.echo["client"]) == (200, s.ip)
    requests = [one[:3] for one in told(mesh, 4) if one[0] == "Request"]
    assert requests == [("Request", "Forwarded", "Egress"), ("Request", "Forwarded", "Ingress")]


def test_case_37_requests_of_the_node_itself_are_not_restricted(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT, "ingress", port=80)))
    s, p = mesh["s"], mesh["p"]
    with echo_server(s.pod.netns, 80):
        assert ask(mesh.near.netns, s.ip, 80, path="/healthz").status == 200
        assert ask(p.pod.netns, s.ip, 80, path="/healthz").status == 403


def test_the_server_s_policy_judges_clients_of_other_nodes(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT, "ingress", "{matchLabels: {app: s}}"), subject="far"))
    s, far = mesh["s"], mesh["far"]
    with echo_server(far.pod.netns, 8080):
        allowed = ask(s.pod.netns, far.ip, 8080)
        assert (allowed.status, allowed.echo["client"]) == (200, s.ip)
        assert ask(s.pod.netns, far.ip, 8080, path="/x").status == 403
    assert [one[:3] for one in told(mesh, 3, far=True)] == [
        ("Request", "Forwarded", "Ingress"),
        ("Response", "Forwarded", "Ingress"),
        ("Request", "Denied", "Ingress"),
    ]


def test_rules_of_one_peer_say_nothing_about_another(mesh: PolicyNet) -> None:
    far = "{matchLabels: {app: far}}"
    mesh.apply(policy(http("{method: GET}")), policy(http("{method: POST}", peer=far), "far"))
    s = mesh["s"]
    with echo_server(mesh["p"].pod.netns, 8080), echo_server(mesh["far"].pod.netns, 8080):
        got = [
            [ask(s.pod.netns, mesh[app].ip, 8080, method).status for method in ("GET", "POST")] for app in ("p", "far")
        ]
    assert got == [[200, 403], [403, 200]]


@pytest.mark.parametrize(
    ("rule", "headers", "status"),
    [
        ("{headers: ['X-A']}", {"x_a": "1"}, 200),
        ("{headers: ['X-A']}", {"x_b": "1"}, 403),
        ("{headers: ['X-A 1']}", {"x_a": "1"}, 200),
        ("{headers: ['X-A 1']}", {"x_a": "11"}, 403),
        ("{headers: ['X-A: 1.']}", {"x_a": "1x"}, 403),
        ("{headerMatches: [{name: X-A, value: '1'}]}", {"x_a": "1"}, 200),
        ("{headerMatches: [{name: X-A, value: '1'}]}", {}, 403),
        ("{host: 'own'}", {"host": "own"}, 200),
        ("{host: 'own'}", {"host": "own:8080"}, 403),
        ("{}", {}, 200),
    ],
)
def test_headers_and_hosts_are_compared_whole(mesh: PolicyNet, rule: str, headers: dict[str, str], status: int) -> None:
    mesh.apply(policy(http(rule)))
    with echo_server(mesh["p"].pod.netns, 8080):
        assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080, **headers).status == status


@pytest.mark.parametrize(
    ("action", "sent", "received"),
    [
        ("LOG", "other", "other"),
        ("ADD", "other", "other, wanted"),
        ("ADD", "", "wanted"),
        ("DELETE", "other", None),
        ("REPLACE", "other", "wanted"),
        ("REPLACE", "", "wanted"),
        ("REPLACE", "wanted", "wanted"),
    ],
)
def test_headers_that_do_not_match_are_changed_as_the_rule_says(
    mesh: PolicyNet, action: str, sent: str, received: str | None
) -> None:
    mesh.apply(policy(http(f"{{method: GET, headerMatches: [{{name: X-A, value: wanted, mismatch: {action}}}]}}")))
    with echo_server(mesh["p"].pod.netns, 8080):
        answer = ask(mesh["s"].pod.netns, mesh["p"].ip, 8080, **({"x_a": sent} if sent else {}))
    assert (answer.status, ", ".join(answer.received("x-a")) or None) == (200, received)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff garbage\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /\xc2\x9b31m HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET /\xc0\x9b\xff HTTP/1.1\r\nhost: h\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_told(mesh: PolicyNet, data: bytes) -> None:
    mesh.apply(policy(http("{}")))
    with echo_server(mesh["p"].pod.netns, 8080):
        status = int(ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, data).split()[1])
        assert status in (400, 431)
        assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080).status == 200
    response, *_ = mesh.envoys[mesh.near.number].records(3)
    assert (response["type"], response["http"]["code"]) == ("Response", status)
    assert "url" not in response["http"], "nothing of it was understood"


def test_a_hostile_path_is_told_as_it_is(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    with echo_server(mesh["p"].pod.netns, 8080):
        raw = b"GET /\"\\'<b>%00%1b[31m" + b"x" * 5000 + b" HTTP/1.1\r\nhost: h\r\n\r\n"
        assert ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, raw).startswith(b"HTTP/1.1 403")
    (_, _, _, url), *_ = told(mesh, 1)
    assert url.startswith("http://h/\"\\'<b>%00%1b[31mxxx")
    assert len(url) < 3000


def test_long_texts_are_cut_and_those_that_are_missing_are_not_told(mesh: PolicyNet) -> None:
    mesh.apply(policy(http("{path: /.*}")))
    long = "y" * 300
    with echo_server(mesh["p"].pod.netns, 8080):
        headers = {"X_Request_Id": long, "Traceparent": long, "User_Agent": long, "Host": long}
        assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080, path=f"/{'x' * 5000}", **headers).status == 200
        raw = b"GET / HTTP/1.1\r\nhost: h\r\nx-request-id: \xff\xfe\t\x80\r\nuser-agent:\r\nconnection: close\r\n\r\n"
        assert ask_raw(mesh["s"].pod.netns, mesh["p"].ip, 8080, raw).startswith(b"HTTP/1.1 200")
    first, _, second, _ = mesh.envoys[mesh.near.number].records(4)
    cut = "y" * 256
    assert first["http"]["url"] == f"http://{cut}/{'x' * 2047}"
    assert first["http"]["headers"] == {"X-Request-Id": cut, "Traceparent": cut, "User-Agent": cut}
    assert second["http"]["headers"] == {"X-Request-Id": "\ufffd\ufffd \ufffd"}


@pytest.mark.parametrize("headers", [0, 200])
def test_a_listener_of_a_user_may_take_any_number_of_headers(mesh: PolicyNet, headers: int) -> None:
    host = mesh.envoys[mesh.near.number]
    manager = typed(
        "envoy.filters.network.http_connection_manager",
        f"{FILTERS}network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="many",
        codec_type="AUTO",
        common_http_protocol_options={"max_headers_count": 300},
        preserve_external_request_id=True,
        route_config={"name": "none", "virtual_hosts": []},
        http_filters=[typed("envoy.filters.http.router", f"{FILTERS}http.router.v3.Router")],
        access_log=downstream_logs("egress", host.node.records_folder),
    )
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 18_710}}
    listener = {"name": "ns/c/many", "address": address, "filter_chains": [{"filters": [manager]}]}
    view = mesh.views[mesh.near.number]
    assert host.run(host.node.update(view, Extra(listeners={"ns/c/many": listener}))), host.node.problems
    more = {f"X_Number_{number}": "x" for number in range(headers)}
    asked = {"Host": "h", "X_Request_Id": "id", "User_Agent": "me", **more}
    eventually(lambda: "ns/c/many" in host.run(host.node.process.admin.listening()))
    assert ask(mesh.near.netns, "127.0.0.1", 18_710, path="/many", **asked).status == 404
    request, response = host.records(2)
    assert request["http"]["headers"] == {"X-Request-Id": "id", "User-Agent": "me"}
    assert (request["http"]["url"], response["http"]["code"]) == ("http://h/many", 404)
    assert host.run(host.node.update(view, Extra()))


def test_a_server_that_is_not_there_is_a_request_and_an_answer_of_503(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    assert ask(mesh["s"].pod.netns, mesh["p"].ip, 8080).status == 503
    request, response = mesh.envoys[mesh.near.number].records(2)
    assert (request["type"], request["verdict"]) == ("Request", "Forwarded")
    assert (response["type"], response["http"]["code"]) == ("Response", 503)


def test_a_policy_change_leaves_connections_alone_and_counts_for_their_next_request(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    with echo_server(mesh["p"].pod.netns, 8080):
        made = connection(mesh["s"].pod.netns, mesh["p"].ip, 8080)
        before = made.sock.getsockname()
        assert ask_on(made).status == 200
        mesh.apply(policy(http("{method: GET, path: /new}")))
        assert [ask_on(made, path=path).status for path in ("/", "/new")] == [403, 200]
        assert made.sock.getsockname() == before
        made.close()


def test_ipv6_is_judged_as_well(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    s, p = mesh["s"].pod, mesh["p"].pod
    with echo_server(p.netns, 8080, socket.AF_INET6):
        answers = [ask(s.netns, p.ipv6, 8080, path=path) for path in ("/", "/x")]
    assert [one.status for one in answers] == [200, 403]
    assert answers[0].echo["client"] == s.ipv6
