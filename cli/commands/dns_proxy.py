"""`flowscope dns-proxy`."""

from __future__ import annotations

from cli.services import service_command

COMMAND = service_command(
    "dns-proxy",
    summary="Answer the DNS queries of one node's pods, as far as dns rules allow",
    description="The agent starts this process once a policy of the node has dns rules, and watches it.",
    config="mesh.dns.config:DnsProxyConfig",
    serve="mesh.dns.main:serve",
    hidden=True,
)
