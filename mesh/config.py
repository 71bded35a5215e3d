"""Settings of the agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh.policy.compiling import MODES
from mesh.services.frontends import ALGORITHMS
from service.failure import Failure
from service.settings import setting

NO_BACKEND: Final = ("reject", "drop")
CIDR_MATCH_MODES: Final = ("", "nodes")
DENY_RESPONSES: Final = ("none", "icmp")
LOCALHOST: Final = ("always", "policy")
SHORTEST_PROOF_S: Final = 4
LONGEST_PROOF_S: Final = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """`flowscope agent`: one per node."""

    node: str = setting("", "name of the node, as its Node resource is called (default: host name)")
    store: str = setting("/var/lib/flowscope/store", "folder of the resource store")
    state_file: str = setting("/run/flowscope/state.json", "where the observer finds out what addresses mean")
    bpffs: str = setting("/sys/fs/bpf", "BPF file system; maps and programs are pinned in flowscope/<node>/ there")
    devices: tuple[str, ...] = setting(("eth0",), "network devices of the node; the first leads to the other nodes")
    cluster_name: str = setting("default", "name of the cluster in labels and in the names of nodes")
    aggregation: str = setting("medium", "how many events the kernel sends: none, low, medium or max")
    aggregation_interval_s: int = setting(5, "seconds between two events of a connection in which nothing changes")
    enable_policy: str = setting("default", "which endpoints have to have a policy: default, always or never")
    policy_cidr_match_mode: str = setting(
        "", "nodes: rules about prefixes select other nodes, too, by their addresses; empty: they never do"
    )
    policy_deny_response: str = setting(
        "none", "what pods hear when policies deny what they send: none, or icmp, that it is prohibited"
    )
    allow_localhost: str = setting(
        "always", "who lets a node talk to its own pods: always everybody, or policy, only policies"
    )
    policy_audit_mode: bool = setting(False, "let pass what policies deny, and tell it as audited")
    host_firewall: bool = setting(
        True, "enforce policies with nodeSelector on the node's own processes; without it, they say nothing"
    )
    envoy: bool = setting(True, "run an Envoy, which judges HTTP and TLS for policies")
    records_socket: str = setting("", "the observer's socket for records of requests; empty: requests make no flows")
    masquerade: bool = setting(True, "let pods talk to the world in the node's name")
    socket_lb: bool = setting(
        False,
        "translate services at the sockets of the node's own processes; not at those of pods, whose flows are to show"
        " the cluster's addresses",
    )
    cgroup_root: str = setting("", "cgroup (version 2) of those processes (default: all, where cgroups are mounted)")
    load_balancer_algorithm: str = setting("random", "how clients outside get backends: random or maglev")
    external_cluster_ip: bool = setting(False, "let clients outside use the cluster addresses of services, too")
    service_no_backend: str = setting("reject", "what clients of services without backends get: reject or drop")
    tofqdns_reject: str = setting("refused", "answer to names that no dns rule allows: refused or nameError")
    tofqdns_min_ttl_s: int = setting(0, "seconds that a name's address is allowed at least, whatever its answer says")
    tofqdns_max_ips: int = setting(1000, "addresses of one name that an endpoint's policy knows at once")
    tofqdns_idle_grace_s: float = setting(0.0, "seconds that an expired address stays after its last connection")
    tofqdns_max_delay_s: float = setting(0.1, "seconds that an answer may wait until the policy knows its addresses")
    auth_port: int = setting(4250, "port at which agents prove identities to each other; 0: no pair is authenticated")
    auth_lifetime_s: int = setting(3600, "seconds that proofs of identities hold")
    garbage_s: float = setting(60.0, "seconds between two clearings of the connection tables")
    drain_s: float = setting(2.0, "seconds given to unfinished work at shutdown")
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log JSON lines")


def check(config: AgentConfig) -> None:
    """Refuse what settings cannot be. Raises: Failure."""
    for option, given, known in (
        ("enable-policy", config.enable_policy, MODES),
        ("policy-cidr-match-mode", config.policy_cidr_match_mode, CIDR_MATCH_MODES),
        ("policy-deny-response", config.policy_deny_response, DENY_RESPONSES),
        ("allow-localhost", config.allow_localhost, LOCALHOST),
        ("load-balancer-algorithm", config.load_balancer_algorithm, ALGORITHMS),
        ("service-no-backend", config.service_no_backend, NO_BACKEND),
    ):
        if given not in known:
            raise Failure(f"--{option} is one of {', '.join(each or 'nothing' for each in known)}, got {given!r}")
    if not SHORTEST_PROOF_S <= config.auth_lifetime_s <= LONGEST_PROOF_S:
        raise Failure(f"--auth-lifetime-s is {SHORTEST_PROOF_S} to {LONGEST_PROOF_S}, got {config.auth_lifetime_s}")
