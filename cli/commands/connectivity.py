"""`flowscope connectivity test`."""

from __future__ import annotations

from cli.command import Command, Example, Flag
from cli.flags import BOOL, DURATION, LIST

_SECOND = 1_000_000_000

COMMAND = Command(
    name="connectivity",
    summary="Test whether the network does what its policies say",
    children=(
        Command(
            name="test",
            summary="Run the connectivity test",
            description=(
                "Sends requests between pods, services, nodes and the outside world of a running lab, without policies"
                " and under many, and judges each twice: by what the client got, and by the flows that were observed."
                "\n\nExit code 0 when all is as it must be, 1 otherwise."
            ),
            flags=(
                Flag(
                    name="test",
                    kind=LIST,
                    value_name="regex",
                    help="run only tests whose name this finds; !regex leaves tests out; repeatable",
                ),
                Flag(name="list", kind=BOOL, help="show the names of the tests and end"),
                Flag(name="junit-file", value_name="file", help="write a JUnit report", completes="file"),
                Flag(name="junit-property", kind=LIST, value_name="key=value", help="property of that report"),
                Flag(name="no-flows", kind=BOOL, help="judge by clients only"),
                Flag(name="relay", help="address of the relay; default: the lab's"),
                Flag(name="external-target", default="one.one.one.one", help="a name outside the cluster"),
                Flag(name="external-ip", default="192.0.2.1", help="the address of that name"),
                Flag(name="external-other-ip", default="192.0.2.2", help="another address outside the cluster"),
                Flag(name="timeout", kind=DURATION, default=30 * _SECOND, help="how long a policy may take"),
                Flag(name="run-dir", default="/run/flowscope/lab", help="folder of the lab", completes="dir"),
            ),
            examples=(
                Example("Everything", "flowscope connectivity test"),
                Example("HTTP policies only", "flowscope connectivity test --test egress-l7"),
                Example("For a CI system", "flowscope connectivity test --junit-file report.xml"),
            ),
            run="connectivity.commands:test",
            checks_server_flags=False,
        ),
    ),
)
