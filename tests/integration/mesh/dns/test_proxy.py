"""The DNS proxy as pods meet it: behind the kernel's redirection, in front of a real server."""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address
from typing import Any

import pytest

from mesh.dns.answers import read_reply
from mesh.dns.wire import Code, Type, parse_query
from tests.support.dnsnet import CLIENT, SERVER, TTL_S, DnsNet, query, read_frame, tcp_frame
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel


def code(answer: bytes) -> int:
    return answer[3] & 0xF


def told(flow: dict[str, Any]) -> tuple[str, str, str]:
    return flow["type"], flow["verdict"], flow["dns"]["Query"]


@pytest.mark.parametrize("family", [4, 6])
def test_an_allowed_name_is_answered_and_both_messages_become_flows(net: DnsNet, family: int) -> None:
    address = net.server_pod.ipv4 if family == 4 else net.server_pod.ipv6
    name = f"Echo.V{family}.Example"
    answer = net.ask(name, address=address, ident=0xBEEF)
    assert answer[:2] == b"\xbe\xef"
    reply = read_reply(answer, parse_query(query(name)).question)
    assert reply.addresses == (ip_address("192.0.2.1"),)
    asked, answered = net.flows(2)
    assert told(asked) == ("Request", "Forwarded", f"{name}.")
    assert told(answered) == ("Response", "Forwarded", f"{name}.")
    own = net.client.ipv4 if family == 4 else net.client.ipv6
    assert asked["source_endpoint"][f"ipv{family}"] == answered["destination_endpoint"][f"ipv{family}"] == own
    assert asked["source_endpoint"]["identity"] == CLIENT
    assert asked["destination_endpoint"] == answered["source_endpoint"] == {
        f"ipv{family}": address,
        "port": 53,
        "identity": SERVER,
        "labels": ["k8s:k8s-app=kube-dns"],
    }  # fmt: skip
    assert (answered["dns"]["IPs"], answered["dns"]["TTL"], answered["dns"]["RCode"]) == (["192.0.2.1"], TTL_S, 0)
    assert answered["latency_ns"] > 0
    eventually(lambda: len(net.agent.learned) == 1)
    assert net.agent.learned == [[1017, f"echo.v{family}.example.", ["192.0.2.1"], TTL_S]]


def test_the_server_is_asked_in_the_name_of_the_client_s_identity(net: DnsNet) -> None:
    net.ask("a.example")
    assert net.client.ipv4 not in net.server.peers


@pytest.mark.parametrize("edns", [None, 4096])
def test_a_name_that_no_rule_allows_is_refused_with_its_question(net: DnsNet, edns: int | None) -> None:
    net.agent.give(net.rules("*.example.com", "one.example"))
    for name in ("example.com", "a.b.example.com", "two.example"):
        answer = net.ask(name, edns=edns)
        assert code(answer) == Code.REFUSED
        assert answer[12:].startswith(parse_query(query(name)).question)
        assert answer[10:12] == (b"\0\0" if edns is None else b"\0\1")
    for name in ("A.example.COM", "one.example"):
        assert code(net.ask(name)) == Code.NO_ERROR
    flows = net.flows(7)
    assert [told(one)[1] for one in flows[:3]] == ["Denied"] * 3
    # Whoever refuses gives no answer that could be a flow of its own.
    assert [one["type"] for one in flows[:3]] == ["Request"] * 3


def test_who_may_be_asked_counts_too(net: DnsNet) -> None:
    net.agent.give(net.rules("*", peers=frozenset({99999})))
    assert code(net.ask("a.example")) == Code.SERVER_FAILURE
    assert told(net.flows(1)[0]) == ("Request", "Error", "a.example.")


def test_refused_by_tcp_as_by_udp_and_answers_may_overtake(net: DnsNet) -> None:
    net.agent.give(net.rules("*.good"))
    with net.tcp() as connection:
        names = ["silent.good", "a.good", "a.bad", "b.good"]
        packets = [query(name, ident=number) for number, name in enumerate(names)]
        connection.sendall(b"".join(map(tcp_frame, packets)))
        answers = {answer[1]: code(answer) for answer in (read_frame(connection) for _ in range(3))}
        assert answers == {1: Code.NO_ERROR, 2: Code.REFUSED, 3: Code.NO_ERROR}
    flows = net.flows(6)
    assert {one["transport_protocol"] for one in flows} == {6}


def test_a_truncated_answer_is_passed_and_asked_again_by_tcp(net: DnsNet) -> None:
    answer = net.ask("many.example")
    assert answer[2] & 0x02
    assert len(answer) <= 512
    with net.tcp() as connection:
        connection.sendall(tcp_frame(query("many.example")))
        whole = read_frame(connection)
    assert struct.unpack(">H", whole[6:8])[0] == 200
    assert len(net.ask("many.example", edns=1232)) > 512


def test_aliases_belong_to_the_name_that_was_asked(net: DnsNet) -> None:
    net.ask("alias.example")
    _, answered = net.flows(2)
    assert answered["dns"]["CNAMEs"] == ["target.example."]
    assert (answered["dns"]["TTL"], answered["dns"]["AnswerTypes"]) == (20, [5, 1])
    eventually(lambda: bool(net.agent.learned))
    assert net.agent.learned[0][1:] == ["alias.example.", ["192.0.2.1"], 20]


def test_a_name_that_does_not_exist_is_told_with_its_code(net: DnsNet) -> None:
    assert code(net.ask("nothing.example", Type.AAAA)) == Code.NAME_ERROR
    _, answered = net.flows(2)
    assert (answered["dns"]["RCode"], answered["dns"]["TTL"]) == (3, 2**32 - 1)


def test_a_server_that_never_answers_takes_only_its_own_room(net: DnsNet) -> None:
    with net.udp(timeout_s=0.5) as sock:
        for number in range(60):
            sock.send(query(f"silent.{number}", ident=number))
        # 50 may wait; the rest learn at once that there is no room.
        answers = [sock.recv(512) for _ in range(10)]
        assert {code(one) for one in answers} == {Code.SERVER_FAILURE}
        with pytest.raises(TimeoutError):
            sock.recv(512)
    # By the other protocol, which counts on its own, the same server can be asked.
    with net.tcp() as connection:
        connection.sendall(tcp_frame(query("a.example")))
        assert code(read_frame(connection)) == Code.NO_ERROR
    time.sleep(1.6)
    assert code(net.ask("a.example")) == Code.NO_ERROR
    flows = net.flows(60 + 50 + 4)
    assert sum(one["verdict"] == "Error" for one in flows) == 10 + 50


@pytest.mark.parametrize("name", ["garbage.example", "other.example"])
def test_an_answer_that_cannot_be_right_does_not_reach_the_client(net: DnsNet, name: str) -> None:
    with net.udp(timeout_s=1.0) as sock:
        sock.send(query(name))
        try:
            assert code(sock.recv(512)) == Code.SERVER_FAILURE
        except TimeoutError:
            assert name.startswith("other")
            # It goes on waiting for the right one, and gives up in the end.
            eventually(lambda: net.flows(1)[0]["verdict"] == "Error")
    assert code(net.ask("a.example")) == Code.NO_ERROR


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0",
        b"\0" * 11,
        b"\xff" * 600,
        query("a.example")[:-3],
        query("a.example")[:5] + b"\2" + query("a.example")[6:],
        b"\0\7\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
        b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"\x3f" + b"x" * 10,
    ],
)
def test_what_is_no_query_is_contained(net: DnsNet, packet: bytes) -> None:
    with net.udp(timeout_s=0.1) as sock:
        sock.send(packet)
        try:
            assert code(sock.recv(512)) == Code.FORMAT_ERROR
        except TimeoutError:
            assert len(packet) < 12 or packet[2] & 0x80
    with net.tcp() as connection:
        connection.sendall(tcp_frame(packet))
    # What an earlier test left waiting may be told meanwhile.
    eventually(lambda: told(net.flows(1)[0]) == ("Request", "Error", ""))
    assert code(net.ask("a.example")) == Code.NO_ERROR


def test_hostile_names_are_shown_escaped(net: DnsNet) -> None:
    raw = b'\0\7\1\0\0\1\0\0\0\0\0\0\4a.b"\3\0\n\xff\0\0\1\0\1'
    net.agent.give(net.rules("ok.example"))
    with net.udp() as sock:
        sock.send(raw)
        assert code(sock.recv(512)) == Code.REFUSED
    assert net.flows(1)[0]["dns"]["Query"] == "a\\.b\\034.\\000\\010\\255."


def test_an_answer_waits_until_the_policy_knows_it_but_not_for_ever(net: DnsNet) -> None:
    net.agent.give(net.rules("*", selectors=("*.example.com",)))
    net.agent.prompt = False
    began = time.monotonic()
    assert code(net.ask("slow.example.com")) == Code.NO_ERROR
    assert time.monotonic() - began >= 0.1
    net.agent.prompt = True
    assert code(net.ask("prompt.example.com")) == Code.NO_ERROR


def test_without_an_agent_the_last_rules_hold_and_the_next_one_learns(net: DnsNet) -> None:
    net.agent.give(net.rules("*.example.com", selectors=("*.example.com",)))
    net.agent.stop()
    eventually(lambda: code(net.ask("alone.example.com")) == Code.NO_ERROR)
    assert code(net.ask("other.com")) == Code.REFUSED
    greeted = len(net.agent.hellos)
    net.agent.start()
    eventually(lambda: len(net.agent.hellos) > greeted)
    learned = {(one[0], one[1]): one[2] for one in net.agent.hellos[-1]["learned"]}
    assert learned[1017, "alone.example.com."] == ["192.0.2.1"]


def test_a_proxy_that_comes_back_serves_again(net: DnsNet) -> None:
    assert net.process is not None
    net.process.kill()
    net.process.wait()
    # Nobody may pass unjudged meanwhile.
    with net.udp(timeout_s=0.2) as sock:
        sock.send(query("a.example"))
        with pytest.raises(TimeoutError):
            sock.recv(512)
    net.agent.stop()
    net.agent.start()
    net.start_proxy()
    net.agent.give(net.rules("*"))
    assert code(net.ask("a.example")) == Code.NO_ERROR


def test_clients_that_nobody_knows_get_a_failure(net: DnsNet) -> None:
    rules = net.rules("*")
    net.agent.give(type(rules)((), rules.servers, rules.labels, ()))
    assert code(net.ask("a.example")) == Code.SERVER_FAILURE
