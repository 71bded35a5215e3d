"""Settings of the DNS proxy."""

from __future__ import annotations

from dataclasses import dataclass

from service.settings import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsProxyConfig:
    """`flowscope dns-proxy`: one per node, started by the node's agent."""

    agent: str = setting("/run/flowscope/dns.sock", "Unix socket of the agent, which tells the rules")
    port: int = setting(10_000, "port of the transparent listeners at 127.0.0.1 and ::1, UDP and TCP")
    records: str = setting("/run/flowscope/records.sock", "records socket of the observer, which shows the flows")
    reject_with: str = setting("refused", "answer to names that no rule allows: refused or nameError")
    max_waiting: int = setting(10_000, "queries that may wait for servers at once")
    max_waiting_per_client: int = setting(2_000, "queries that may wait from one client to one server")
    upstream_timeout_s: float = setting(10.0, "seconds after which a server is not expected to answer any more")
    max_delay_s: float = setting(0.1, "seconds that an answer may wait until the policy knows its addresses")
    drain_s: float = setting(1.0, "seconds given to unfinished work at shutdown")
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log JSON lines")
