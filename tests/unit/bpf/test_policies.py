"""What stands in a policy map, beside the reference that looks entries up one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bpf import maps
from bpf.policies import AUTH_EXPLICIT, EndpointPolicy, PolicyEntry, encode
from mesh.policy.peers import Identity
from tests.support.policy_reference import Flow, longest, look_up

PEERS = (1000, 1001)
PORTS = (79, 80, 81)
BLOCKS = ((0, 0, 0), (6, 0, 0), (6, 80, 15), (6, 80, 16), (6, 81, 16), (17, 0, 0), (17, 80, 16))
"""Protocol, first port, length of its prefix."""


def policies() -> st.SearchStrategy[EndpointPolicy]:
    """Of few peers and ports, so that entries meet."""
    place = st.tuples(st.booleans(), st.sampled_from((0, *PEERS)), st.sampled_from(BLOCKS))
    what = st.tuples(
        st.sampled_from((1, 2, 0xFFFFFFFF)),
        st.booleans(),
        st.sampled_from((0, 10000)),
        st.sampled_from((0, 1, AUTH_EXPLICIT, AUTH_EXPLICIT | 1)),
    )
    return st.dictionaries(place, what, max_size=8).map(
        lambda found: EndpointPolicy(
            tuple(
                PolicyEntry(egress, peer, *block, precedence, deny, proxy_port, auth)
                for (egress, peer, block), (precedence, deny, proxy_port, auth) in found.items()
            ),
            enforced_ingress=True,
            enforced_egress=True,
        )
    )


def final_entries(policy: EndpointPolicy) -> set[PolicyEntry]:
    """Those after which the kernel does not ask what is said about any identity."""
    values = np.frombuffer(encode(policy).values, maps.POLICY_ENTRY)
    return {
        entry
        for entry, value in zip(policy.effective_entries(), values[:-1], strict=True)
        if value["flags"] & maps.POLICY_FINAL
    }


@given(policies(), st.booleans(), st.sampled_from(PEERS), st.sampled_from((6, 17)), st.sampled_from(PORTS))
def test_one_question_is_enough_where_the_map_says_so(
    policy: EndpointPolicy, egress: bool, peer: int, protocol: int, port: int
) -> None:
    flow = Flow(egress, Identity(peer, ()), protocol, port)
    about_peers = tuple(entry for entry in policy.entries if entry.identity)
    if longest(about_peers, peer, flow) in final_entries(policy):
        alone = EndpointPolicy(about_peers, enforced_ingress=True, enforced_egress=True)
        assert look_up(policy, flow) == look_up(alone, flow)


def test_rules_about_named_peers_alone_need_one_question() -> None:
    rules = tuple(PolicyEntry(True, peer, 6, port, 16) for peer in PEERS for port in (80, 81))
    policy = EndpointPolicy(rules, enforced_egress=True)
    assert final_entries(policy) == set(rules)


def test_a_redirect_for_everybody_is_asked_for() -> None:
    mine, redirect = PolicyEntry(True, PEERS[0]), PolicyEntry(True, 0, 6, 80, 16, precedence=2, proxy_port=10000)
    policy = EndpointPolicy((mine, redirect), enforced_egress=True)
    assert final_entries(policy) == set()
