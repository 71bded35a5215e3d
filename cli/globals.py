"""The flags that every command accepts: the server to ask, and how to reach it.

In:        nothing.
Out:       GLOBAL_FLAGS, and ROOT, the command above all others.
Elsewhere: their values, merged with environment and file, are in settings.py.
"""

from __future__ import annotations

from typing import Final

from cli.command import PROGRAM, Command, Example, Flag, Tree
from cli.flags import BOOL, DURATION, LIST, UINT16

SECOND: Final = 1_000_000_000

_SERVER: Final = "Server"

GLOBAL_FLAGS: Final = (
    Flag(
        name="server",
        default="localhost:4245",
        value_name="address",
        help="observer or relay to ask: host:port, unix:///path, or tls://host:port",
        group=_SERVER,
        bound=True,
    ),
    Flag(name="tls", kind=BOOL, help="use TLS", group=_SERVER, bound=True),
    Flag(
        name="tls-allow-insecure",
        kind=BOOL,
        help="do not verify the server's certificate (the connection can be intercepted)",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="tls-ca-cert-files",
        kind=LIST,
        value_name="files",
        help="PEM files with certificates of trusted authorities; empty: those of the system",
        group=_SERVER,
        bound=True,
        completes="file",
    ),
    Flag(
        name="tls-client-cert-file",
        value_name="file",
        help="PEM file with our certificate, for servers that ask who we are",
        group=_SERVER,
        bound=True,
        completes="file",
    ),
    Flag(
        name="tls-client-key-file",
        value_name="file",
        help="PEM file with the key of our certificate",
        group=_SERVER,
        bound=True,
        completes="file",
    ),
    Flag(
        name="tls-server-name",
        value_name="name",
        help="name that the server's certificate must carry, e.g. instance.hubble-relay.cilium.io",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="basic-auth-username",
        value_name="name",
        help="user name sent with every call; needs TLS",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="basic-auth-password",
        value_name="password",
        help="password sent with every call; needs TLS",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="timeout",
        kind=DURATION,
        default=5 * SECOND,
        help="accepted for compatibility; connecting never waits",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="request-timeout",
        kind=DURATION,
        default=12 * SECOND,
        help="longest wait for an answer of one message",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="port-forward",
        short="P",
        kind=BOOL,
        help="reach the relay inside a Kubernetes cluster by port forwarding (needs kubectl)",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="port-forward-port",
        kind=UINT16,
        default=4245,
        value_name="port",
        help="local port of the forwarding; 0: any free one",
        group=_SERVER,
        bound=True,
    ),
    Flag(name="kube-context", value_name="name", help="context of the kubeconfig file", group=_SERVER, bound=True),
    Flag(
        name="kube-namespace",
        default="kube-system",
        value_name="name",
        help="namespace of the relay's service",
        group=_SERVER,
        bound=True,
    ),
    Flag(
        name="kubeconfig",
        value_name="file",
        help="kubeconfig file for port forwarding",
        group=_SERVER,
        bound=True,
        completes="file",
    ),
    Flag(
        name="config",
        value_name="file",
        help="configuration file (YAML; see `flowscope config`)",
        group="Other",
        bound=True,
        completes="file",
    ),
    Flag(
        name="debug",
        short="D",
        kind=BOOL,
        help="log details to stderr, and show all node status records",
        group="Other",
        bound=True,
    ),
)

VERSION_FLAG: Final = Flag(name="version", short="v", kind=BOOL, help="print the version", group="Other")

ROOT: Final = Command(
    name=PROGRAM,
    summary="Show every flow of a network: who talks to whom, over what, and what the network decided",
    description=(
        "Show every flow of a network: who talks to whom, over what, and what the network decided.\n\n"
        "Asks an observer (one node) or a relay (all nodes), of Flowscope or of Hubble, or reads files."
    ),
    examples=(
        Example("Follow what is dropped anywhere", "flowscope observe -f --verdict DROPPED"),
        Example("Who talks to a pod", "flowscope observe --to-pod shop/cart --last 50"),
        Example("Health and size of the relay", "flowscope status"),
    ),
    flags=(VERSION_FLAG,),
    checks_server_flags=False,
)


def command_tree() -> Tree:
    """All commands of `flowscope`."""
    return Tree(ROOT, GLOBAL_FLAGS)
